"""The main job on one machine: a devnet, two validators, three honest miners and two cheats.

cast.py       who takes part, and what they hold
stage.py      wallets, registration, stakes, filled disks
processes.py  the operating-system processes, and that none outlives the demo
cheats.py     the two adversaries: real miners with the check taken out
watch.py      what stands on the chain and in the validators' ledgers
verdict.py    whether the honest are paid for what they hold and the cheats nothing: a pure decision
table.py      the table, as one for people, a line, and JSON
display.py    showing it go on
play.py       the play from the first process to the verdict
command.py    the command
"""
