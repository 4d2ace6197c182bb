"""HTTP between neurons: an axon serves, a dendrite asks, every request is signed (btauth/1).

axon.py       the server: routes, life cycle
protocol.py   one connection: phases and their time limits
gate.py       what holds for every request, before any route
admission.py  who may call: signature, rate, registration, permit
nonces.py     that a request is accepted once, over restarts and processes
limits.py     sizes, times, token buckets
refusals.py   what a refused peer is told, and the operator's line
metrics.py    Prometheus counters
dendrite.py   the client
backend.py    the network below it
addresses.py  which endpoints may be dialled
messages.py   the JSON of the protocol
"""
