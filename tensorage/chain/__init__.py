"""Everything that touches the chain, and the only package that imports the bittensor SDK.

    types.py    what the rest of tensorage knows of a chain: frozen records, no SDK
    address.py  SS58 addresses and the 32-byte keys behind them, no SDK
    auth.py     signatures, and signed HTTP requests (btauth/1)
    wallet.py   hotkeys from wallet files
    weights.py  when weights may be set and whether they landed: pure decisions
    serving.py  when an axon record may be published: pure decisions
    convert.py  the SDK's values as our records
    client.py   `Chain`, the adapter that services use
    devnet/     a local chain behind the SDK's own Substrate seam

Importing the SDK takes most of a second, so this module imports none of the above: `types` and `address` stay
cheap for whoever needs only them.
"""
