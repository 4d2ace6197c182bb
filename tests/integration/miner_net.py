"""Miners on a devnet for tests: one inside the test's event loop, or one as a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from chain_net import eventually

from tensorage import seal, shard
from tensorage.chain.auth import verify
from tensorage.chain.network import open_chain
from tensorage.chain.wallet import Hotkey
from tensorage.challenge import Challenge, max_answer_size, verify_answer
from tensorage.keyauth import SigningKey
from tensorage.miner.service import MinerService, MinerSettings
from tensorage.ticket import SignedTicket, Stored, Ticket
from tensorage.transport.dendrite import Dendrite
from tensorage.transport.file_calls import MinerCalls
from tensorage.transport.messages import ChallengeMessage

MINER, OTHER, VALIDATOR = (Hotkey.from_uri(uri) for uri in ("//M1", "//M2", "//V"))
SECTOR = 4 << 20
HOPS = 8
#: A serial is never used twice, not even in two tests.
SERIALS = itertools.count(1)
#: Processes that a test has started; what is left of them is killed after it.
STARTED: list[subprocess.Popen[str]] = []


def settings(net, root: Path, sectors: int, **changes) -> MinerSettings:
    return MinerSettings(
        **{
            "chain": net.settings,
            "roots": (root,),
            "size_in_gb": sectors * SECTOR / (1 << 30),
            "workers": 1,
            "seconds_per_reallocate": 1.0,
            "host": "127.0.0.1",
            "port": 0,
            **changes,
        }
    )


@asynccontextmanager
async def mining(net, root: Path, sectors: int, *, key: Hotkey = MINER, opener=open_chain, **changes):
    """A miner that serves; ends with the block."""
    service = MinerService(settings(net, root, sectors, **changes), key, opener=opener)
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        await eventually(lambda: service.endpoint is not None or task.done())
        if task.done():
            task.result()
        yield service
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)


class Asker:
    """A validator's side of the protocol, against one miner."""

    def __init__(self, net, chain, hotkey: Hotkey = VALIDATOR, miner: Hotkey = MINER) -> None:
        self.net = net
        self.chain = chain
        self.hotkey = hotkey
        self.miner = miner
        self.dendrite = Dendrite(hotkey, allow_private=True)
        self._round = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.dendrite.aclose()

    async def neuron(self):
        return (await self.chain.metagraph(max_age=0)).by_hotkey(self.miner.ss58)

    async def commitment(self, seq: int | None = None):
        message = await self.dendrite.commitment(await self.neuron(), seq)
        signed = message.signed(
            genesis=self.chain.genesis_hash, netuid=self.chain.netuid, miner=self.miner.public_key
        )
        signed.check(verify)
        return signed.commitment

    async def committed(self, sectors: int | None = None, seconds: float = 30.0):
        """The newest commitment, once it is to so many sectors, or to any."""

        async def whole():
            with suppress(Exception):
                return sectors in (None, (await self.commitment()).sector_count)
            return False

        await eventually(whole, seconds)
        return await self.commitment()

    async def message(self, about, **changes) -> ChallengeMessage:
        """A challenge about the newest block, as soon as there is one above the commitment's."""
        head = await self.chain.head()
        while head.number <= about.block_number:
            await asyncio.sleep(0.02)
            head = await self.chain.head()
        self._round += 1
        fields = {
            "commitment": about.hash,
            "block_number": head.number,
            "block_hash": head.hash,
            "round": self._round,
            "hops": HOPS,
        }
        return ChallengeMessage(**{**fields, **changes})

    async def put(self, commitment, message: ChallengeMessage) -> bytes:
        """The raw answer, whatever it is worth."""
        answer, _ = await self.dendrite.challenge(
            await self.neuron(),
            message,
            max_bytes=max_answer_size(commitment, message.hops),
            deadline=10,
        )
        return answer

    def verified(self, commitment, message: ChallengeMessage, answer: bytes):
        """The walk that an answer proves."""
        challenge = Challenge(
            message.block_hash,
            self.chain.netuid,
            self.hotkey.public_key,
            self.miner.public_key,
            message.commitment,
            message.round,
        )
        return verify_answer(challenge.nonce, message.hops, commitment, answer, verify)

    async def prove(self, commitment, **changes):
        message = await self.message(commitment, **changes)
        return self.verified(commitment, message, await self.put(commitment, message))


def flags(net, root: Path, wallets: Path, sectors: int, *extra: str) -> list[str]:
    """The command line of a miner on the devnet."""
    return [
        f"--subtensor.network={net.endpoint}",
        f"--netuid={net.settings.netuid}",
        "--wallet.name=m",
        f"--wallet.path={wallets}",
        f"--db_root_path={root}",
        f"--size_in_gb={sectors * SECTOR / (1 << 30)}",
        "--workers=1",
        "--axon.port=0",
        f"--logging.logging_dir={root / 'logs'}",
        *extra,
    ]


def start(arguments: list[str], *, limit: int | None = None) -> subprocess.Popen[str]:
    """`tensorage miner` as a process; what it says on stderr is read by the caller.

    Args:
        limit: the most bytes that a file of it may have, until that is lifted: a disk that fills up.
    """

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorage", "miner", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    STARTED.append(process)
    if limit is not None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    return process


def workers_of(pid: int) -> list[int]:
    """The sealing workers that a process has started."""
    children = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in _words(file)]
    return [child for child in children if "tensorage.allocator.worker" in " ".join(_words(cmdline(child)))]


def cmdline(pid: int) -> Path:
    return Path(f"/proc/{pid}/cmdline")


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().replace("\0", " ").split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does: T for stopped, Z for a zombie; Z too when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


class Client:
    """A client with a validator's tickets, against one miner; its key is the access key of one file."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.access = SigningKey(os.urandom(32))
        self.dendrite = Dendrite(self.access, allow_private=True, per_peer=16)
        self.calls = MinerCalls(self.dendrite)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.dendrite.aclose()

    def ticket(self, data: bytes, *, key: Hotkey | None = None, **changes) -> SignedTicket:
        """A validator's ticket for these bytes; good for an hour unless `changes` say otherwise."""
        asker = self.asker
        key = key or asker.hotkey
        fields = {
            "genesis": asker.chain.genesis_hash,
            "netuid": asker.chain.netuid,
            "validator": key.public_key,
            "client": self.access.public_key,
            "miner": asker.miner.public_key,
            "shard_root": shard.shard_root(data),
            "leaves": len(data) // seal.LEAF_SIZE,
            "expires": int(time.time()) + 3600,
            "serial": next(SERIALS),
        }
        ticket = Ticket(**{**fields, **changes})
        return SignedTicket(ticket, key.sign(ticket.hash))

    async def put(self, ticket: SignedTicket, data: bytes) -> Stored:
        """Store a shard; the receipt, which is checked."""
        stored = await self.calls.put_shard(await self.asker.neuron(), ticket, data)
        stored.check(self.asker.miner.public_key, verify)
        return stored

    async def store(self, leaves: int = shard.MOST_LEAVES, **changes) -> tuple[SignedTicket, bytes]:
        """Store random bytes under a ticket of their own."""
        data = os.urandom(leaves * seal.LEAF_SIZE)
        ticket = self.ticket(data, **changes)
        await self.put(ticket, data)
        return ticket, data

    async def piece(self, ticket: SignedTicket, first: int = 0, count: int = 0) -> bytes:
        """Some leaves, or all, proven."""
        t = ticket.ticket
        answer = await self.calls.piece(await self.asker.neuron(), ticket, first, count or t.leaves)
        return bytes(shard.read_piece(t.shard_root, t.leaves, first, count or t.leaves, answer))

    async def challenge(self, ticket: SignedTicket, hops: int = HOPS) -> None:
        """Challenge a shard, and check the answer."""
        t, salt, miner = ticket.ticket, os.urandom(32), self.asker.miner.public_key
        answer, _ = await self.calls.challenge(await self.asker.neuron(), t.hash, salt, hops, t.leaves)
        nonce = shard.nonce(salt, self.access.public_key, miner, t.hash)
        shard.verify_answer(nonce, hops, t.shard_root, t.leaves, miner, answer, verify)
