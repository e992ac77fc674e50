"""The token broker gets the OAuth2 access token of the pipeline, and renews it before it ends.

Comes in: `TokenRequest` from the fetcher and the publisher, with the fingerprint of a token if the API refused it.
Goes out: `Token` to the process that asked; each new token also to the fetcher and the publisher without a request.
Owns: nothing on disk; the token is kept in memory only. Only this process talks to the token endpoint, with one request
at a time, so that a busy pipeline makes about one request in each lifetime of a token.
Survives: its own death at any moment (the others keep their token, and a new broker requests one at once), a token
endpoint that is down, throttles, sends invalid responses or does not respond, and a client secret that is rotated while
it runs.
"""
