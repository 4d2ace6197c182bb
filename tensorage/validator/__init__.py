"""The validator: asks miners, judges the answers, keeps receipts, and sets weights.

parameters.py what is asked, and how often
judge.py      what one exchange comes to, and when failures are the validator's own: pure
scoring.py    what a score is made of and how it moves: pure, versioned
standing.py   what is known of a miner, and how commitments, audits and verdicts change it: pure
ledger.py     validator.sqlite: receipts and what they did, in one transaction (schema.py, rows.py)
book.py       the same in memory, and one thread for the ledger
exchange.py   asking one miner
round.py      one round over all miners (together.py: many at once)
audit.py      seal audits: which sectors, and comparing them (pool.py, sealing.py: sealing in other processes)
weights.py    when weights are due, and setting them
desk.py       giving miners their receipts
lag.py        how long the validator itself stood still
metrics.py    rounds and verdicts for Prometheus
service.py    puts the parts together, starts and ends them
status.py     the table of scores, read by other processes
export.py     receipts as a file, and checking one offline
command.py    the command `validator`; receipts_command.py is `receipts`
"""
