"""Stand-ins for all that is outside (the API, OAuth2, OpenAI, Ollama); shares no code with the stages.

One process, real HTTP on loopback, five listeners. The demo, the tests and the benchmarks use the same ones.

    http.py       requests and answers; connection.py parses and sends them
    service.py    what every stand-in has: settings, faults, traffic counters; the road from request to answer
    faults.py     what a fault may say, and which requests it applies to
    effects.py    what a fault does to one exchange
    settings.py   every setting, by service
    api.py        the NestJS application's ai-tasks; tasks.py keeps them, tokens.py tells who may come in
    oauth2.py     the token endpoint
    openai.py     POST /v1/embeddings         | vectors.py makes the vectors, metering.py counts what was paid,
    ollama.py     POST /api/embed, /api/pull  | transforms.py spoils answers
    control.py    the switches: tasks, faults, settings, summaries
    client.py     the same switches from Python
"""
