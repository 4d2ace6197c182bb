"""The miner: keeps sealed sectors, commits to them, and answers validators.

service.py    puts the parts together, starts and ends them
routes.py     what the axon serves
blocks.py     which block a challenge may be about
answers.py    whether a challenge is answered, and the answer
commits.py    when a commitment is made, and making it
fill.py       sealing what is missing in the background, and giving way to challenges
command.py    the command
"""
