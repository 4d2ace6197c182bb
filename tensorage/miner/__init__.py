"""The miner: keeps sealed sectors and clients' shards, commits to them, and answers for them.

service.py    puts the parts together, starts and ends them
routes.py     what the axon serves of capacity
blocks.py     which block a challenge may be about
answers.py    whether a challenge is answered, and the answer
commits.py    when a commitment is made, and making it
fill.py       sealing what is missing in the background, and giving way to challenges
shards.py     what is done for clients; it names its parts
command.py    the command
leaving.py    `miner exit`
"""
