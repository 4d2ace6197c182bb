"""Everything that touches the chain, and the only package that imports the bittensor SDK.

    client.py         `Chain`, the adapter that services use; the files below are its parts
    types.py          what the rest of tensorage knows of a chain: frozen records, no SDK
    address.py        SS58 addresses and the 32-byte keys behind them, no SDK
    auth.py           signatures, and signed HTTP requests (btauth/1)
    wallet.py         hotkeys from wallet files; coldkey.py: the key that holds TAO
    network.py        which chain is meant, and how to reach it
    connection.py     one connection, which comes back by itself
    snapshots.py      the metagraph, fetched on a timer, never served stale
    weights.py        when weights may be set and whether they landed: pure decisions
    weight_setter.py  setting them
    serving.py        publishing an axon
    transfers.py      paying in TAO with a reference, and reading such payments off finalized blocks
    writer.py         writing under one hotkey; extrinsics.py says truthfully what became of it
    convert.py        the SDK's values as our records; faults.py: its exceptions, sorted
    btcli.py          the btcli program and how its answers are read, no SDK
    devnet/           a local chain behind the SDK's own Substrate seam

Importing the SDK takes most of a second, so this module imports none of the above: `types` and `address` stay
cheap for whoever needs only them.
"""
