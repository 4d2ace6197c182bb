"""A devnet in a temporary file whose blocks are made by hand or by a task, and faults at the SDK's seam."""

import asyncio
import contextlib
import os
import time
from types import SimpleNamespace

from bittensor import Client, RpcConnectionError
from bittensor.intents import AddStake, BurnedRegister

from tensorage.chain.client import Chain, ChainSettings
from tensorage.chain.devnet import open_substrate
from tensorage.chain.devnet.block import BlockMaker
from tensorage.chain.devnet.genesis import Genesis, create
from tensorage.chain.devnet.location import url
from tensorage.chain.devnet.producer import production
from tensorage.chain.network import open_chain
from tensorage.chain.wallet import Hotkey

NETUID = 1


class Net:
    """The devnet, and the keys registered on it: //V with stake, //M1 and //M2 without."""

    def __init__(self, path, **genesis):
        self.path = path
        self.store = create(path, Genesis(**{"block_time": 0.1, "tempo": 10, "seed": "test", **genesis}))
        self.maker = BlockMaker(self.store)
        self.endpoint = url(path)
        self.settings = ChainSettings("finney", self.endpoint, NETUID)

    def blocks(self, count=1):
        for _ in range(count):
            self.maker.make(time_ms=int(time.time() * 1000), entropy=os.urandom(32))

    @contextlib.asynccontextmanager
    async def producing(self, every=0.03):
        async def produce():
            while True:
                await asyncio.to_thread(self.blocks)
                await asyncio.sleep(every)

        with production(self.path):
            task = asyncio.create_task(produce())
            try:
                yield self
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def chain(self, uri=None, **options):
        return Chain(self.settings, Hotkey.from_uri(uri) if uri else None, **options)

    async def populate(self):
        """Registers and stakes through the SDK; needs blocks."""
        alice = Hotkey.from_uri("//Alice").keypair
        async with Client("local", substrate=open_substrate(self.endpoint)) as client:
            for uri in ("//V", "//M1", "//M2"):
                hotkey = Hotkey.from_uri(uri).keypair
                wallet = SimpleNamespace(coldkey=alice, coldkeypub=alice, hotkey=hotkey)
                (await client.execute(BurnedRegister(netuid=NETUID), wallet)).raise_for_failure()
                if uri == "//V":
                    stake = AddStake(hotkey_ss58=hotkey.ss58_address, netuid=NETUID, amount_tao="1000")
                    (await client.execute(stake, wallet)).raise_for_failure()

    async def calls(self, function):
        """The heights of the blocks with an extrinsic that calls `function`, one for each."""
        async with Client("local", substrate=open_substrate(self.endpoint)) as client:
            blocks = [await client.block_info(number) for number in range(1, await client.block() + 1)]
        return [
            block.number
            for block in blocks
            for extrinsic in block.extrinsics
            if extrinsic["call"]["call_function"] == function
        ]


async def eventually(holds, seconds=60.0):
    """Waits until `holds`, a function of nothing, plain or asynchronous, says so.

    The time is for a machine that does much else: only a failing test takes it.
    """
    deadline = time.monotonic() + seconds
    while True:
        verdict = holds()
        if await verdict if asyncio.iscoroutine(verdict) else verdict:
            return
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def permitted(chain, hotkey):
    """Waits for the epoch that gives a hotkey its permit."""

    async def holds():
        return (await chain.metagraph(max_age=0)).by_hotkey(hotkey.ss58).validator_permit

    await eventually(holds)


class Faults:
    """An opener of chains that fail on demand.

    away: nothing answers.
    submit: "lost" drops an extrinsic before it is sent, "cut" breaks the connection after it was.
    """

    def __init__(self):
        self.away = False
        self.submit = None

    def open(self, settings):
        return _Faulty(open_chain(settings), self)


class _Faulty:
    def __init__(self, inner, faults):
        self._inner = inner
        self._faults = faults

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found) or name == "close":
            return found

        async def guarded(*args, **kwargs):
            if self._faults.away:
                raise RpcConnectionError("the connection is gone")
            return await found(*args, **kwargs)

        return guarded

    async def submit(self, call, keypair, **options):
        if self._faults.submit == "lost":
            keypair.sign(b"what would have been sent")
            raise RpcConnectionError("the connection is gone")
        result = await self._inner.submit(call, keypair, **options)
        if self._faults.submit == "cut":
            raise RpcConnectionError("the connection is gone")
        return result
