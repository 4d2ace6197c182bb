"""One connection to one chain, which comes back by itself.

Rules. A failed call drops the connection; the next call opens a new one, not sooner than a delay that
doubles with every failure up to a minute and is spread by chance, so that a fleet does not return at once.
An outage is logged once with its remedy, and its end once. A chain that answers but makes no blocks is
another outage, which `heads` notices. A chain with another genesis block than before is another chain, and
is refused. Every failure is a tensorage ChainError; every wait has an end.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TypeVar, cast

import anyio
from bittensor import BlockHeader, Client, Policy, RpcPolicyError, Substrate
from bittensor import ChainError as SdkChainError

from ..errors import ChainError, TensorageError, UsageError
from .convert import block_hash
from .faults import ANY, AWAY
from .network import ChainSettings, Opener, open_chain
from .types import BlockRef

T = TypeVar("T")
S = TypeVar("S", bound="OnConnection")

CONNECT_TIMEOUT = 30.0
READ_TIMEOUT = 30.0
CLOSE_TIMEOUT = 5.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0

log = logging.getLogger(__name__)

# What ends a subscription.
_ENDED: tuple[type[Exception], ...] = (StopAsyncIteration, *ANY)


def retry_delay(failures: int, chance: float) -> float:
    """Seconds to wait after `failures` failures in a row; `chance` in [0, 1) spreads it by half each way."""
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16)) * (0.5 + chance)


class Connection:
    """Access to a chain through the SDK. Opens on first use; `close` ends it for good.

    Args:
        policy: what the SDK may sign and send over it.
        clock: seconds, monotonic.
        opener: makes the SDK's Substrate for the settings.
    """

    def __init__(
        self,
        settings: ChainSettings,
        *,
        policy: Policy,
        clock: Callable[[], float],
        opener: Opener = open_chain,
    ) -> None:
        self.settings = settings
        self.genesis_hash: bytes | None = None
        self.block_time: float | None = None
        self._policy = policy
        self._clock = clock
        self._opener = opener
        self._substrate: Substrate | None = None
        self._client: Client | None = None
        self._opening = asyncio.Lock()
        self._failures = 0
        self._retry_at = 0.0
        self._away_since: float | None = None

    async def open(self, *, quiet: bool = False) -> Client:
        """The connected client.

        Args:
            quiet: log no failure, because the caller tells of the error.

        Raises:
            ChainError: the chain cannot be reached now, or it is not yet time to try again.
        """
        if self._client is not None:
            return self._client
        async with self._opening:
            if self._client is not None:
                return self._client
            wait = self._retry_at - self._clock()
            if self._failures and wait > 0:
                raise ChainError(f"chain {self.settings.label} is away, the next attempt is in {wait:.0f} s")
            substrate = None
            try:
                substrate = self._opener(self.settings)
                with anyio.fail_after(CONNECT_TIMEOUT):
                    await substrate.connect()
                    genesis = block_hash(await substrate.block_hash(0))
                    block_time = await substrate.block_time()
                self._recognise(genesis)
            except ANY as error:
                await _close(substrate)
                raise self._failed(error, quiet=quiet) from error
            except BaseException:
                await _close(substrate)
                raise
            self.genesis_hash, self.block_time = genesis, block_time
            self._substrate = substrate
            self._client = Client(self.settings.sdk_network, policy=self._policy, substrate=substrate)
            self._answered()
            return self._client

    async def wait_open(self) -> None:
        """Waits, for ever if need be, until the chain answers."""
        while True:
            try:
                await self.open()
            except ChainError:
                await self.pause(1)
            else:
                return

    async def pause(self, failures: int) -> None:
        """Waits before trying again what failed `failures` times, until an attempt is due at the least."""
        due = self._retry_at - self._clock()
        await anyio.sleep(max(due, retry_delay(failures, _chance())))

    async def close(self) -> None:
        substrate, self._substrate, self._client = self._substrate, None, None
        await _close(substrate)

    async def read(self, what: str, ask: Callable[[Client], Awaitable[T]]) -> T:
        """The answer to one question; `what` names it in errors.

        Raises:
            ChainError: the chain is away, refused, or said what cannot be read.
        """
        client = await self.open()
        try:
            with anyio.fail_after(READ_TIMEOUT):
                answer = await ask(client)
        except AWAY as error:
            raise await self._lost(client, error) from error
        except ANY as error:
            raise ChainError(
                f"{what} cannot be read from chain {self.settings.label}: {_text(error)}"
            ) from error
        self._answered()
        return answer

    async def drop(self, client: Client) -> None:
        """Gives up the connection behind `client`, unless that has happened."""
        if client is self._client:
            await self.close()

    async def block(self, number: int) -> BlockRef:
        """The block at a height, on the chain that the node holds for the best now."""

        async def ask(_: Client) -> str:
            return await self.backend.block_hash(number)

        return BlockRef(number, block_hash(await self.read(f"block {number}", ask)))

    async def head(self) -> int:
        """The height of the best block."""
        return await self.read("the head", lambda client: client.block())

    async def finalized(self) -> int:
        """The height of the newest finalized block."""
        return await self.read("the finalized head", lambda client: client.finalized_block())

    async def heads(self, stall_after: float | None = None) -> AsyncGenerator[BlockRef, None]:
        """New best blocks, each higher than the one before, for ever; some are left out after an outage.

        Args:
            stall_after: seconds without a block after which the connection is opened anew; by default ten
                block times, at least 30.
        """
        highest, failures, fresh_at, stalled = -1, 0, self._clock(), False
        while True:
            try:
                await self.head()  # whether the chain answers at all, and a line in the log if not
                client = await self.open()
                patience = stall_after or max(30.0, 10 * (self.block_time or 0))
                async with aclosing(_heights(client, patience)) as heights:
                    async for height in heights:
                        if height > highest:
                            block = await self.block(height)
                            if stalled:
                                log.info(
                                    "chain makes blocks again chain=%s height=%d", self.settings.label, height
                                )
                            highest, failures, stalled = height, 0, False
                            yield block
                            fresh_at = self._clock()  # the time that the consumer took is not the chain's
                if self._clock() - fresh_at >= patience:
                    await self.drop(client)
                    if not stalled:
                        stalled = True
                        log.warning(
                            "chain makes no blocks chain=%s seconds=%.0f remedy=%r",
                            self.settings.label,
                            patience,
                            self._remedy,
                        )
            except ChainError as error:
                log.debug("heads interrupted chain=%s error=%r", self.settings.label, error.message)
            failures += 1
            await self.pause(failures)

    @property
    def backend(self) -> Substrate:
        """The SDK's access to the chain itself, for what its client has no word for; ask it inside `read`."""
        if self._substrate is None:
            raise ChainError(f"chain {self.settings.label} is away")
        return self._substrate

    def _recognise(self, genesis: bytes) -> None:
        """Refuses another chain than the one that answered first."""
        if self.genesis_hash not in (None, genesis):
            raise ChainError(
                f"its first block has the hash 0x{genesis.hex()}, another one than before",
                remedy="Point at the old chain again, or restart to work on the new one",
            )

    async def _lost(self, client: Client, error: Exception) -> ChainError:
        """Gives up a connection that failed; several calls that were under way on it count as one failure."""
        if client is not self._client:
            return ChainError(
                f"chain {self.settings.label} does not answer: {_text(error)}", remedy=self._remedy
            )
        failure = self._failed(error)
        await self.drop(client)
        return failure

    def _failed(self, error: Exception, *, quiet: bool = False) -> ChainError:
        """Counts a failure, logs the first of an outage, and says when the next attempt is due."""
        self._failures += 1
        delay = retry_delay(self._failures, _chance())
        if isinstance(error, RpcPolicyError):
            delay = max(delay, _seconds(error.retry_after), LONGEST_DELAY / 2)
        self._retry_at = self._clock() + delay
        ours = error if isinstance(error, TensorageError) else error.__cause__
        said = ours if isinstance(ours, TensorageError) else error
        remedy = (said.remedy if isinstance(said, TensorageError) else "") or self._remedy
        if self._away_since is None and not quiet:
            self._away_since = self._clock()
            log.warning("chain is away chain=%s error=%r remedy=%r", self.settings.label, _text(said), remedy)
        return ChainError(f"chain {self.settings.label} does not answer: {_text(said)}", remedy=remedy)

    def _answered(self) -> None:
        self._failures = 0
        if self._away_since is not None:
            away = self._clock() - self._away_since
            log.info("chain answers again chain=%s away_s=%.0f", self.settings.label, away)
            self._away_since = None

    @property
    def _remedy(self) -> str:
        if self.settings.is_devnet:
            return f"Start it with: tensorage devnet up{self.settings.devnet_flag}"
        return "Check the network, or name another node with --subtensor.chain_endpoint"


async def _heights(client: Client, patience: float) -> AsyncGenerator[int, None]:
    """The heights of new headers, until `patience` seconds pass without one or the subscription breaks."""
    stream = cast("AsyncGenerator[BlockHeader, None]", client.blocks())
    async with aclosing(stream):
        while True:
            try:
                with anyio.fail_after(patience):
                    header = await anext(stream)
            except _ENDED as error:
                log.debug("subscription ended error=%r", _text(error))
                return
            yield header.number


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads load, guards nothing


async def _close(substrate: Substrate | None) -> None:
    """Closes, whatever state the connection is in, and does not wait long for it."""
    if substrate is None:
        return
    with anyio.move_on_after(CLOSE_TIMEOUT, shield=True), suppress(*ANY):
        await substrate.close()


def _text(error: BaseException) -> str:
    line = " ".join(
        str(error.message if isinstance(error, (SdkChainError, TensorageError)) else error).split()
    )
    return line or type(error).__name__


def _seconds(retry_after: str | None) -> float:
    try:
        return float(retry_after or 0)
    except ValueError:
        return 0.0


class OnConnection:
    """What is seen over one connection. An asynchronous context manager: entering raises UsageError when the
    chain is away."""

    def __init__(self, connection: Connection) -> None:
        self.settings = connection.settings
        self._connection = connection

    async def __aenter__(self: S) -> S:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self) -> None:
        try:
            await self._connection.open(quiet=True)
        except ChainError as error:
            raise UsageError(error.message, remedy=error.remedy) from error

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    @property
    def genesis_hash(self) -> bytes:
        """The 32-byte hash of block 0; ChainError before the chain was reached."""
        if self._connection.genesis_hash is None:
            raise ChainError(f"chain {self.settings.label} has not been reached yet")
        return self._connection.genesis_hash

    @property
    def block_time(self) -> float:
        """Seconds a block, as the chain says it: 12 on finney. ChainError before the chain was reached."""
        if self._connection.block_time is None:
            raise ChainError(f"chain {self.settings.label} has not been reached yet")
        return self._connection.block_time

    async def finalized(self) -> BlockRef:
        """The newest finalized block."""
        return await self._connection.block(await self._connection.finalized())
