"""The validator's service: puts the parts together, starts and ends them.

At the start everything that the operator must put right is an error and ends the command. From then on
nothing ends it but a signal: a chain, a peer or a disk that fails is logged once with its remedy and tried
again. SIGTERM stops sealing at once, lets answers finish, and is over within 5 seconds. What a receipt says
is on the disk before it counts, so a process that is killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..allocator.layout import directory_name
from ..chain.auth import verify
from ..chain.client import Chain
from ..chain.network import ChainSettings, Opener, open_chain
from ..chain.wallet import Hotkey
from ..errors import StaleChainError
from ..gateway.gateway import Gateway
from ..receipts import Verdict
from ..service.duty import Trouble, repeat
from ..service.lifetime import DRAIN_SECONDS, required, until
from ..service.profile import is_harmless
from ..service.quiet import Quiet
from ..service.selfcheck import check_reachable, external_endpoint
from ..transport.axon import Access, Axon
from ..transport.dendrite import Dendrite
from ..transport.metrics import Metrics
from ..transport.nonces import SqliteNonceStore
from . import standing
from .audit import Auditor
from .book import Book
from .desk import ReceiptDesk
from .exchange import Exchange
from .lag import LagMeter
from .ledger import LEDGER_NAME, LedgerIdentity, delete_ledger, open_ledger
from .metrics import RoundMetrics
from .parameters import Parameters
from .pool import SealingError, SealPool
from .round import Rounds
from .weights import Weights

log = logging.getLogger(__name__)

T = TypeVar("T")

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - peers must reach it
_METAGRAPH_BLOCKS = 5  # how often the metagraph is refreshed
_PUBLISH_SECONDS = 600.0
_SELFCHECK_SECONDS = 600.0
_SHORTEST_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class ValidatorSettings:
    """What an operator can set.

    Attributes:
        root: the directory of the ledger's directory.
        restart: delete the ledger first.
        workers: processes for seal audits.
        store_scores, restore_scores: whether scores are written, and whether those that are there are read.
        external_port: None for the port that is listened on.
    """

    chain: ChainSettings
    root: Path
    restart: bool = False
    workers: int = 1
    store_scores: bool = True
    restore_scores: bool = True
    host: str = ANY_ADDRESS
    port: int = 8091
    external_ip: str | None = None
    external_port: int | None = None
    metrics_port: int = 0
    parameters: Parameters = field(default_factory=Parameters)


class ValidatorService:
    """A validator. `run` it once.

    Args:
        hotkey: signs requests, receipts and the axon record.
        opener: makes the SDK's access to the chain.
        executor: where audits are sealed, instead of worker processes of our own.

    Attributes:
        axon: None before it listens.
        ledger_path: None before the chain told whose ledger it is.
    """

    def __init__(
        self,
        settings: ValidatorSettings,
        hotkey: Hotkey,
        *,
        opener: Opener = open_chain,
        executor: Executor | None = None,
    ) -> None:
        self.settings = settings
        self.hotkey = hotkey
        self.axon: Axon | None = None
        self.ledger_path: Path | None = None
        self._opener = opener
        self._executor = executor

    async def run(self, stop: asyncio.Event) -> None:
        """Validate until `stop` is set.

        Raises:
            UsageError: something that the operator must put right first.
        """
        settings, parameters = self.settings, self.settings.parameters
        async with AsyncExitStack() as stack:
            chain = await stack.enter_async_context(Chain(settings.chain, self.hotkey, opener=self._opener))
            if not is_harmless(settings.chain, chain.genesis_hash):
                parameters = parameters.strict()
            neuron = await required(chain.require_registered())
            book = await self._open_book(chain)
            stack.push_async_callback(book.close)
            pool = SealPool(settings.workers, self._executor)
            stack.callback(pool.close)
            worker = ThreadPoolExecutor(2, thread_name_prefix="verify")
            stack.callback(worker.shutdown, wait=False, cancel_futures=True)
            dendrite = await stack.enter_async_context(
                Dendrite(self.hotkey, allow_private=parameters.private)
            )
            lag = LagMeter()
            exchange = Exchange(dendrite, book.identity, parameters, verify, lag, worker)
            quiet = Quiet()
            gateway = await Gateway.open(
                book,
                self.hotkey,
                metagraph=chain.metagraph_now,
                parameters=parameters,
                quiet=quiet,
                worker=worker,
            )
            stack.push_async_callback(gateway.close)
            metrics = Metrics()
            axon = await self._start_axon(stack, chain, book, gateway, metrics)
            metrics.serve(settings.metrics_port)
            endpoint = external_endpoint(
                settings.external_ip, settings.external_port or axon.port, local=settings.chain.is_devnet
            )
            log.info(
                "validator runs uid=%d hotkey=%s netuid=%d axon=%s ledger=%s",
                neuron.uid,
                self.hotkey.ss58,
                settings.chain.netuid,
                endpoint,
                book.ledger.path,
            )
            rounds = _RoundDuty(
                Rounds(chain, exchange, book, parameters, quiet=quiet),
                Auditor(exchange, book, parameters, pool),
                gateway,
                RoundMetrics(metrics.registry),
                parameters.round_seconds,
            )
            weights = Weights(chain, book)
            published = asyncio.Event()

            async def publish() -> float:
                await chain.serve_axon(endpoint)
                published.set()
                return _PUBLISH_SECONDS

            async def check() -> float:
                await published.wait()
                async with Dendrite(self.hotkey, allow_private=True) as other:
                    await check_reachable(other, self.hotkey.ss58, endpoint)
                return _SELFCHECK_SECONDS

            await until(
                stop,
                {
                    "lag": lag.run(),
                    "refreshing the metagraph": chain.keep_fresh(
                        max(1.0, _METAGRAPH_BLOCKS * chain.block_time)
                    ),
                    "rounds": repeat("a round", rounds.run),
                    "weights": repeat("setting weights", weights.run),
                    "publishing the axon": repeat("publishing the axon", publish),
                    "the check of our own axon": repeat("the check of our own axon", check),
                    **gateway.duties(),
                },
            )
            log.info("validator stops hotkey=%s", self.hotkey.ss58)

    async def _open_book(self, chain: Chain) -> Book:
        settings = self.settings
        identity = LedgerIdentity(chain.genesis_hash, settings.chain.netuid, self.hotkey.public_key)
        path = settings.root / directory_name(identity.netuid, identity.hotkey) / LEDGER_NAME
        if settings.restart:
            await asyncio.to_thread(delete_ledger, path)
            log.info("ledger deleted path=%s", path)
        opened = partial(open_ledger, path, identity, store_scores=settings.store_scores)
        book = Book(await asyncio.to_thread(opened), self.hotkey.sign)
        await book.load()
        if not settings.restore_scores:
            now = await book.run(book.ledger.last_round)
            book.miners = {key: standing.forgotten(miner, now) for key, miner in book.miners.items()}
        self.ledger_path = path
        return book

    async def _start_axon(
        self, stack: AsyncExitStack, chain: Chain, book: Book, gateway: Gateway, metrics: Metrics
    ) -> Axon:
        nonces = await asyncio.to_thread(SqliteNonceStore, book.ledger.path.parent / "nonces.sqlite")
        stack.callback(nonces.close)

        def ready() -> str | None:
            try:
                registered = chain.metagraph_now().by_hotkey(self.hotkey.ss58) is not None
            except StaleChainError as error:
                return error.message
            return None if registered else "not registered"

        axon = Axon(
            self.hotkey.ss58,
            role="validator",
            host=self.settings.host,
            port=self.settings.port,
            metagraph=chain.metagraph_now,
            nonces=nonces,
            ready=ready,
            metrics=metrics,
        )
        desk = ReceiptDesk(book.ledger.path)
        stack.callback(desk.close)
        axon.route("GET", "/v1/receipts", desk.answer, access=Access.REGISTERED)
        gateway.attach(axon)
        await axon.start()
        stack.push_async_callback(axon.drain, DRAIN_SECONDS)
        self.axon = axon
        return axon


class _RoundDuty:
    """A round and its audits; audits that this machine cannot do must not stop the rounds."""

    def __init__(
        self, rounds: Rounds, auditor: Auditor, gateway: Gateway, metrics: RoundMetrics, every: float
    ) -> None:
        self._rounds = rounds
        self._auditor = auditor
        self._gateway = gateway
        self._metrics = metrics
        self._every = every
        self._trouble = Trouble("a seal audit")

    async def run(self) -> float:
        """Do both; the seconds until the next round."""
        started = time.monotonic()
        report = await self._rounds.run()
        self._metrics.ended(report)
        counts = " ".join(f"{verdict.word}={report.verdicts.get(verdict, 0)}" for verdict in Verdict)
        log.info(
            "round done round=%d block=%d asked=%d %s seconds=%.2f",
            report.number,
            report.block.number,
            sum(report.verdicts.values()),
            counts,
            report.seconds,
        )
        try:
            await self._auditor.run(report.peers, report.passed, report.block, report.number)
        except SealingError as error:
            self._trouble.failed(error)
        else:
            self._trouble.worked()
        await self._gateway.settle(report.block, report.number)
        return max(_SHORTEST_PAUSE, self._every - (time.monotonic() - started))
