"""The client: what puts files into the subnet and gets them back, without trusting anybody in between.

    home.py      the client's own directory: who may read it, and locks
    catalog.py   rows: files with their keys, stripes that were begun, shards with their tickets
    sources.py   what is put: a file, a pipe, or a directory as a deterministic tar stream (`tree`)
    gateway.py   which validator hands out tickets, and as whom it is asked
    memory.py    a bounded number of bytes in flight
    coder.py     encoding and decoding of a stripe in threads
    upload.py    put
    shards.py    one verified piece of a stripe, from whichever miners have it
    download.py  get
    command.py   flags in, outcome out

Rules. Plaintext and file keys never leave this machine, except in a link file that was asked for. No two
contents are ever encrypted under one key. What a miner or a gateway sends is believed only as far as a root,
a signature or the file's own key proves it. Nothing has its final name before all of it was verified.
"""
