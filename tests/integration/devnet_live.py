"""A devnet that makes its blocks by itself, on a thread of the test, and wallets for it."""

import contextlib
import threading
from types import SimpleNamespace

from bittensor.keyfiles import Keypair

from tensorage.chain.devnet.genesis import Genesis, create
from tensorage.chain.devnet.producer import Producer, production
from tensorage.chain.devnet.store import Store

BLOCK_TIME = 0.05


def wallet(uri, hotkey=None):
    """What the SDK takes for a wallet: the coldkey URI and the hotkey URI//hot."""
    cold = Keypair.create_from_uri(uri)
    hot = Keypair.create_from_uri(hotkey or f"{uri}//hot")
    return SimpleNamespace(coldkey=cold, coldkeypub=cold, hotkey=hot, hotkeypub=hot)


@contextlib.contextmanager
def live(path, **genesis):
    """Make the devnet if it is not there, and its blocks until the end."""
    if path.exists():
        store = Store(path)
    else:
        store = create(path, Genesis(**{"block_time": BLOCK_TIME, "tempo": 20, **genesis}))
    stop = threading.Event()
    with production(path):
        thread = threading.Thread(target=Producer(store).run, args=(stop,))
        thread.start()
        try:
            yield path
        finally:
            stop.set()
            thread.join()
            store.close()
