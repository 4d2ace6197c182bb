"""HTTP between neurons, and with clients: an axon serves, a dendrite asks.

Requests are signed, by hotkeys (btauth/1) or by keys of clients (keyauth/1); what is not signed carries its
own proof, as an upload its ticket, or asks for what anyone may know.

axon.py           the server: routes, life cycle
call.py           what its handlers get
listening.py      the socket that it listens on
protocol.py       one connection: phases and their time limits
gate.py           what holds for every request, before any route
admission.py      who may call: signature, rate, registration, permit
uploads.py        bodies that a handler takes piece by piece
nonces.py         that a request is accepted once, over restarts and processes
limits.py         sizes, times, token buckets
refusals.py       what a refused peer is told, and the operator's line
metrics.py        Prometheus counters
dendrite.py       the client
backend.py        the network below it
addresses.py      which endpoints may be dialled
messages.py       the JSON of the protocol
file_messages.py  the JSON of clients' files, of the fields in fields.py
file_calls.py     what is asked for them: of miners (miner_calls.py) and of gateways (gateway_calls.py)
"""
