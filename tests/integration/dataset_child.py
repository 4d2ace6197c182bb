"""A process that records versions for ever, until it is killed: HOME, a key's hex, bundle after bundle."""

import sys
import time
from pathlib import Path

from tensorage.dataset.identity import EthSigner
from tensorage.dataset.store import Store

home, secret, *bundles = sys.argv[1:]
signer = EthSigner(bytes.fromhex(secret))
print("ready", flush=True)
sys.stdin.readline()
with Store(Path(home)) as store:
    while True:
        for bundle in bundles:
            with store.alone():
                store.finish("chats", signer) if store.datasets() else None
                store.create("chats", signer.owner)
                store.append("chats", store.ingest(Path(bundle)), signer, int(time.time()))
            store.sign_head("chats", signer, int(time.time()))
