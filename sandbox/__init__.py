"""Stand-ins for the external services (API, OAuth2, OpenAI, Ollama). Shares no code with the stages.

One process with five listeners, and real HTTP on loopback. The demo, the tests and the benchmarks all use it.

    http.py           HTTP requests and responses; connection.py parses and sends them
    stand_in.py       the base class of all stand-ins: settings, faults, counters
    serving.py        connects a stand-in to its connections
    faults.py         what a fault is, and which requests it applies to
    effects.py        completes the exchanges that take time or are changed by a fault
    settings.py       every setting, by service
    api.py            the NestJS application's ai-tasks; tasks.py stores them, access_tokens.py checks tokens
    oauth2.py         the token endpoint
    openai.py         POST /v1/embeddings         | vectors.py makes the vectors, metering.py counts what is charged,
    ollama.py         POST /api/embed, /api/pull  | transforms.py corrupts responses
    world.py          all stand-ins and their listeners; server.py runs them as a process
    control.py        the control interface: tasks, faults, settings, summaries
    client.py         the control interface from Python
    pipeline.py       the real pipeline against a sandbox
    demo.py           `make demo`
    chaos/            `make chaos`
"""
