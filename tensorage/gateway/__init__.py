"""The gateway: through it clients of a validator get their tickets, and their files are looked after.

Accounts, files, places and tickets are kept in `files.sqlite` beside the validator's ledger. No byte of a
file passes through here, and nothing that is kept here opens one.
"""
