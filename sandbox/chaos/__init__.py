"""`make chaos`: the whole pipeline under random faults, judged afterwards by what the outside recorded.

plan.py        what happens when: a pure function of the seed
kinds.py       the kinds of faults: how often, for how long, and what each may cost
inflict.py     carries out a plan: signals to processes, outages and wrong responses of the sandbox
feeding.py     the tasks: most are good, some have a fault of their own
judge.py       the verdicts: from the record of the API and of the provider, without I/O
__main__.py    one run: start, inflict, wait until all is done, stop, judge, print
"""
