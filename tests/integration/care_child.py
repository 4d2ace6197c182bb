"""A validator's process that repairs until it kills itself: what the fault tests of the gateway start.

python care_child.py <files.sqlite> <where> <json: miners as [uid, uri, coldkey, port]>
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from care_net import GENESIS, NETUID, SETTINGS, VALIDATOR
from transport_net import neuron

from tensorage.chain.auth import verify
from tensorage.chain.types import BlockRef, Endpoint, Metagraph
from tensorage.chain.wallet import Hotkey
from tensorage.gateway.care import Care
from tensorage.gateway.caretaker import Caretaker
from tensorage.gateway.directory import Directory, Standings
from tensorage.gateway.schema import Issuer
from tensorage.gateway.store import FileStore
from tensorage.service.quiet import Quiet
from tensorage.transport.dendrite import Dendrite
from tensorage.transport.file_calls import MinerCalls


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(path: Path, where: str, miners: list[tuple[int, str, str, int]]) -> None:
    there = [neuron(0, VALIDATOR, None, permit=True)]
    for uid, uri, coldkey, port in miners:
        there.append(replace(neuron(uid, Hotkey.from_uri(uri), Endpoint("127.0.0.1", port)), coldkey=coldkey))
    metagraph = Metagraph(NETUID, BlockRef(1, bytes(32)), 360, VALIDATOR.ss58, tuple(there))

    async def nothing() -> Standings:
        return Standings()

    async def none() -> dict[str, int]:
        return {}

    store = FileStore(path, Issuer(GENESIS, NETUID, VALIDATOR.public_key))
    async with Dendrite(VALIDATOR, allow_private=True) as dendrite:
        directory = Directory(
            MinerCalls(dendrite),
            VALIDATOR.ss58,
            metagraph=lambda: metagraph,
            standings=nothing,
            outstanding=none,
        )
        await directory.refresh()
        care = Care(
            store=store,
            dendrite=dendrite,
            public_key=VALIDATOR.public_key,
            sign=VALIDATOR.sign,
            verify=verify,
            metagraph=lambda: metagraph,
            market=directory,
            worker=ThreadPoolExecutor(1),
            quiet=Quiet(),
            settings=SETTINGS,
            clock=time.time,
        )
        if where == "before the upload":
            MinerCalls.put_shard = die  # type: ignore[assignment]
        elif where == "before the receipt is written":
            FileStore.replace_shard = die  # type: ignore[assignment]
        else:
            written = FileStore.replace_shard

            def after(*arguments: object) -> None:
                written(*arguments)  # type: ignore[arg-type]
                die()

            FileStore.replace_shard = after  # type: ignore[assignment]
        await Caretaker(care, allow_private=True).repairer.run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])))
