"""The miner's service: puts the parts together, starts and ends them.

At the start everything that the operator must put right is an error and ends the command: the chain cannot be
reached, the hotkey is not registered, the port is taken, the database is another's. From then on nothing
ends it but a signal: what fails is logged once with its remedy and tried again (`duty`). SIGTERM stops the
sealing workers, lets answers finish, and is over within 5 seconds. State is on disk after every step, so a
process that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .. import config
from ..allocator import disks, locks
from ..allocator.layout import DATABASE, Identity, directory_name
from ..allocator.plan import Headroom, Target
from ..allocator.reader import Reader
from ..allocator.schema import read_identity
from ..allocator.shards import ShardStore
from ..allocator.store import Store
from ..allocator.upkeep import drop
from ..chain.client import Chain
from ..chain.network import ChainSettings, Opener, open_chain
from ..chain.types import Endpoint
from ..chain.wallet import Hotkey
from ..errors import StaleChainError
from ..service.duty import repeat
from ..service.lifetime import DRAIN_SECONDS, required, until
from ..service.profile import profile_of
from ..service.selfcheck import check_reachable, external_endpoint
from ..transport.axon import Axon
from ..transport.dendrite import Dendrite
from ..transport.metrics import Metrics
from ..transport.nonces import SqliteNonceStore
from .answers import Answers
from .blocks import Blocks
from .commits import Committer
from .fill import Filler
from .priority import Priority
from .routes import Routes
from .shards import Shards

log = logging.getLogger(__name__)

T = TypeVar("T")

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - peers must reach it
_METAGRAPH_BLOCKS = 5  # how often the metagraph is refreshed
_SELFCHECK_SECONDS = 600.0
_DAY = 86_400
DEFAULT_TRASH_DAYS = 7.0
LONGEST_TRASH = 365.0  # days


@dataclass(frozen=True, slots=True)
class MinerSettings:
    """What an operator can set; see operators.md for the flags.

    Attributes:
        roots: directories on the disks to use; the database is on the first.
        size_in_gb: None for the default, beside which whatever is there already stays.
        threshold: share of the free space to fill, instead of `size_in_gb`.
        headroom: what stays free on each disk.
        restart: drop what is there first.
        profile: number of the sector profile; None for the network's own.
        external_port: None for the port that is listened on.
        trash_days: how long shards that were removed or have expired are kept.
    """

    chain: ChainSettings
    roots: tuple[Path, ...]
    size_in_gb: float | None = None
    threshold: float | None = None
    headroom: Headroom = field(default_factory=Headroom)
    restart: bool = False
    workers: int | None = None
    seconds_per_reallocate: float = 600.0
    profile: int | None = None
    host: str = ANY_ADDRESS
    port: int = 8091
    external_ip: str | None = None
    external_port: int | None = None
    metrics_port: int = 0
    trash_days: float = DEFAULT_TRASH_DAYS


class MinerService:
    """A miner. `run` it once.

    Args:
        settings: from the command line.
        hotkey: signs commitments, answers and the axon record.
        opener: makes the SDK's access to the chain.

    Attributes:
        endpoint: what is published, None before the axon listens.
        store: the miner's database, None before it is open.
        shards: the clients' shards in it, likewise.
    """

    def __init__(self, settings: MinerSettings, hotkey: Hotkey, *, opener: Opener = open_chain) -> None:
        self.settings = settings
        self.hotkey = hotkey
        self.endpoint: Endpoint | None = None
        self.store: Store | None = None
        self.shards: ShardStore | None = None
        self._opener = opener
        self._unready: str | None = "starting"
        # What waits for the disk: one thread for the loops, apart from those that answer.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loops")

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            UsageError: something that the operator must put right first.
        """
        settings = self.settings
        local = settings.chain.is_devnet
        profile = await self._in_thread(self._profile)
        async with AsyncExitStack() as stack:
            stack.callback(self._thread.shutdown, wait=False, cancel_futures=True)
            chain = await stack.enter_async_context(Chain(settings.chain, self.hotkey, opener=self._opener))
            neuron = await required(chain.require_registered())
            identity = Identity(chain.genesis_hash, settings.chain.netuid, self.hotkey.public_key, profile)
            directory = settings.roots[0] / identity.directory_name
            await self._in_thread(
                lambda: stack.enter_context(locks.serving(disks.prepare_directory(directory)))
            )
            if settings.restart:
                dropped = await self._in_thread(lambda: drop(settings.roots, identity))
                log.info("dropped files=%d commitments_kept=%s", dropped.files, dropped.chain_kept)
            filler = await self._in_thread(
                lambda: Filler.open(
                    settings.roots,
                    identity,
                    target=Target.of(
                        settings.size_in_gb, settings.threshold, default=config.DEFAULT_SIZE_IN_GB
                    ),
                    headroom=settings.headroom,
                    workers=settings.workers,
                    every=settings.seconds_per_reallocate,
                )
            )
            stack.push_async_callback(filler.close)
            self.store = store = filler.store
            await self._in_thread(lambda: self.prepare(store))
            reading = await self._in_thread(lambda: Store(store.path, identity))
            stack.callback(reading.close)
            reader = await self._in_thread(lambda: self.make_reader(reading))
            stack.callback(reader.close)

            trash = round(settings.trash_days * _DAY)
            self.shards = kept = await self._in_thread(lambda: ShardStore(store, trash_seconds=trash))
            priority = Priority(filler.pause, filler.resume)
            metrics = Metrics()
            shards = Shards(
                kept,
                filler,
                metagraph=chain.metagraph_now,
                sign=self.hotkey.sign,
                priority=priority,
                registry=metrics.registry,
            )
            stack.callback(shards.close)

            blocks = Blocks(chain.block_hash)
            blocks.saw((await chain.metagraph(max_age=60)).block)
            answers = Answers(
                reader,
                netuid=identity.netuid,
                miner=identity.hotkey,
                sign=self.hotkey.sign,
                blocks=blocks,
                priority=priority,
                see_to=filler.see_to,
                see_to_slots=shards.see_to,
            )
            stack.callback(answers.close)
            routes = Routes(reading, answers)
            stack.callback(routes.close)
            axon = await self._start_axon(stack, chain, (routes, shards), metrics, store.path.parent)
            metrics.serve(settings.metrics_port)
            self.endpoint = external_endpoint(
                settings.external_ip, settings.external_port or axon.port, local=local
            )
            committer = Committer(
                store,
                self.hotkey.sign,
                planning=filler.planning,
                head=lambda: blocks.head,
                tempo=lambda: chain.metagraph_now().tempo,
            )
            log.info(
                "miner serves uid=%d hotkey=%s netuid=%d axon=%s data=%s",
                *(neuron.uid, self.hotkey.ss58, identity.netuid, self.endpoint, store.path.parent),
            )
            stack.callback(filler.stop)
            await self._work(stop, chain, blocks, committer, filler, shards)

    def _profile(self) -> int:
        """The sector profile that was asked for, else that of the database, else the network's."""
        settings = self.settings
        number = settings.profile
        if number is None and not settings.restart:
            directory = settings.roots[0] / directory_name(settings.chain.netuid, self.hotkey.public_key)
            known = read_identity(directory / DATABASE)
            number = known.profile if known else None
        return profile_of(number, settings.chain)

    def prepare(self, store: Store) -> None:
        """Called once, before anything is served."""

    def make_reader(self, store: Store) -> Reader:
        """What opens leaves for challenges."""
        return Reader(store)

    async def _start_axon(
        self,
        stack: AsyncExitStack,
        chain: Chain,
        served: Sequence[Routes | Shards],
        metrics: Metrics,
        directory: Path,
    ) -> Axon:
        nonces = await self._in_thread(lambda: SqliteNonceStore(directory / "nonces.sqlite"))
        stack.callback(nonces.close)

        def ready() -> str | None:
            try:
                if chain.metagraph_now().by_hotkey(self.hotkey.ss58) is None:
                    return "not registered"
            except StaleChainError as error:
                return error.message
            return self._unready

        axon = Axon(
            self.hotkey.ss58,
            role="miner",
            host=self.settings.host,
            port=self.settings.port,
            metagraph=chain.metagraph_now,
            nonces=nonces,
            ready=ready,
            metrics=metrics,
        )
        for routes in served:
            routes.attach(axon)
        await axon.start()
        stack.push_async_callback(axon.drain, DRAIN_SECONDS)
        return axon

    async def _work(
        self,
        stop: asyncio.Event,
        chain: Chain,
        blocks: Blocks,
        committer: Committer,
        filler: Filler,
        shards: Shards,
    ) -> None:
        """Run the duties until `stop` is set, or one of them fails by a mistake of ours."""
        endpoint = self.endpoint
        assert endpoint is not None
        block_time = chain.block_time
        published = asyncio.Event()
        grown = asyncio.Event()

        async def commit() -> float:
            if await self._in_thread(committer.step) is not None:
                grown.set()
                shards.see_to()
            return min(12.0, max(0.5, block_time))

        async def publish() -> float:
            await chain.require_registered()
            await chain.serve_axon(endpoint)
            published.set()
            return self.settings.seconds_per_reallocate

        async def check() -> float:
            await published.wait()
            async with Dendrite(self.hotkey, allow_private=True) as dendrite:
                await check_reachable(dendrite, self.hotkey.ss58, endpoint)
            return _SELFCHECK_SECONDS

        async def partition() -> float:
            metagraph = chain.metagraph_now()
            await self._in_thread(lambda: filler.partition(metagraph))
            return self.settings.seconds_per_reallocate

        self._unready = None
        await until(
            stop,
            {
                "following the chain": blocks.follow(chain.heads()),
                "refreshing the metagraph": chain.keep_fresh(max(1.0, _METAGRAPH_BLOCKS * block_time)),
                "committing": repeat("committing", commit),
                "publishing the axon": repeat("publishing the axon", publish),
                "the check of our own axon": repeat("the check of our own axon", check),
                "sharing space among validators": repeat(
                    "sharing space among validators", partition, again=grown
                ),
                "filling": filler.run(),
                **shards.duties(),
            },
        )
        log.info("miner stops hotkey=%s", self.hotkey.ss58)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
