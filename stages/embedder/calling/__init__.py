"""One call to a provider: what is sent, when it is sent again, and whether the results can be used.

provider_call.py    retries and halving, as decisions without I/O; for any kind of call
driver.py           does what these decisions ask for, on a thread: gate, request, wait
embedding_call.py   what is particular to embeddings: the request, the check, the metrics
vector_guard.py     whether the vectors of a response can be used
gate.py             when a provider may be asked: circuit breakers and cooldowns
learned_caps.py     how large a request may be
request_budget.py   how many requests a batch may make, and what they cost
routes.py           which providers may embed for a model
"""
