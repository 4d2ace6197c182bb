"""What a miner and a validator have in common as services.

duty.py       work that is repeated for ever, through any failure
lifetime.py   how a service begins, runs its duties and ends
profile.py    which sector profile a network takes
selfcheck.py  which address others reach us at, and whether they do
"""
