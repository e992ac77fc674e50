"""The token broker keeps one OAuth2 access token and hands it out.

Comes in: `TokenRequest` from the fetcher and the publisher, with the fingerprint of a token that the API refused, if any.
Goes out: `Token` to each process that asked. A renewed token also goes to the fetcher and the publisher, unrequested,
before the old one expires.

It alone talks to the token endpoint, one request at a time, so that a busy pipeline costs Ory one request an hour.

Owns nothing on disk: the token is in memory only. Survives: its own death at any moment (the others keep the tokens
they have, and a new broker fetches one at once), an endpoint that is down, throttles, answers nonsense or stalls, and a
client secret that is rotated while it runs.
"""
