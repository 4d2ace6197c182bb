"""put: a source into the subnet.

Stripes are read and encrypted one after the other and stored side by side, as many as fit into the buffers
(`memory`). A stripe's mark is in the catalog before any of it is sent; where it is there already, from an
upload that broke off, it must be the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import anyio.to_thread

from .. import seal
from ..coding.keys import FileKeys
from ..coding.layout import Stripe, full_leaves
from ..coding.stream import ciphertext_size
from ..errors import TensorageError, UsageError
from ..transport.file_calls import MinerCalls
from ..transport.file_messages import MOST_SHARDS, CompleteFile
from .catalog import Catalog, FileRow
from .coder import Coder
from .crew import Crew
from .gateway import DEADLINE, Gateway, GatewayError
from .memory import BUDGET, Pool
from .placing import Job, Placer
from .reading import Batch, Cut, Reader
from .sources import Source


class SourceChanged(TensorageError):
    """What is put is not what was put before under the same key."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an upload.

    Attributes:
        size, sha256: of the plaintext.
        short: stripes with fewer than all of their shards, and how many those have.
    """

    size: int
    sha256: bytes
    stripes: int
    short: dict[int, int]
    failures: dict[str, str]


def check_fits(data_shards: int, parity_shards: int) -> None:
    """Check that a stripe has no more shards than one may have, and fits into the memory that a client takes.

    Raises:
        UsageError: it has, or does not.
    """
    shards, size = data_shards + parity_shards, full_leaves(data_shards) * seal.LEAF_SIZE
    if shards > MOST_SHARDS:
        raise UsageError(f"{shards} shards are too many", remedy=f"Take at most {MOST_SHARDS} in all")
    if shards * size > BUDGET:
        raise UsageError(
            f"{shards} shards of a stripe take {shards * size >> 20} MiB of memory",
            remedy=f"Take at most {BUDGET // size - data_shards} parity shards, or more data shards",
        )


class Upload:
    """One upload of `source` as the file `row`, which the gateway knows and the catalog has as uploading.

    Args:
        least: shards without which a stripe is not stored.
        progress: told of bytes of ciphertext, as they are stored.
    """

    def __init__(
        self,
        source: Source,
        row: FileRow,
        gateway: Gateway,
        miners: MinerCalls,
        catalog: Catalog,
        *,
        least: int,
        progress: Callable[[float], None],
    ) -> None:
        self._source = source
        self._row = row
        self._keys = FileKeys.of(row.key)
        self._gateway = gateway
        self._miners = miners
        self._catalog = catalog
        self._least = least
        self._progress = progress
        self._lengths: dict[int, int] = {}
        self._whole: set[int] = set()
        check_fits(row.data_shards, row.parity_shards)

    async def run(self) -> Outcome:
        """Store all of it, and have the gateway say that it is complete.

        Raises:
            SourceChanged: the source is not what the upload began with.
            TooFewMiners, GatewayError, UsageError, StorageError: see there.
        """
        row = self._row
        n = row.data_shards + row.parity_shards
        known = await asyncio.to_thread(self._catalog.stripes, row.id)
        self._whole = {mark.number for mark, whole in known if whole}
        reader = Reader(self._source.read_into, row.key, self._keys.content, row.data_shards, self._whole)
        pool = Pool.of(full_leaves(row.data_shards) * seal.LEAF_SIZE, n)
        with Coder(self._keys.spread, row.id) as coder:
            placer = Placer(
                row,
                self._keys,
                self._gateway,
                self._miners,
                self._catalog,
                coder,
                least=self._least,
                progress=self._stored,
            )
            crew = Crew()
            crew.start(self._read(reader, pool, placer, coder, crew))
            await crew.finish()
        short = await asyncio.to_thread(self._catalog.short, row.id, n)
        await self._complete(reader.size, len(self._lengths))
        return Outcome(reader.size, reader.sha256, len(self._lengths), short, placer.failures)

    async def _read(self, reader: Reader, pool: Pool, placer: Placer, coder: Coder, crew: Crew) -> None:
        last = False
        while not last:
            data = await pool.take(self._row.data_shards)
            batch = await anyio.to_thread.run_sync(reader.fill, data, abandon_on_cancel=True)
            last = batch.last
            for cut in batch.cuts:
                await asyncio.to_thread(self._mark, cut)
            if all(cut.stripe.number in self._whole for cut in batch.cuts):
                pool.give(data)
                for cut in batch.cuts:
                    self._progress(cut.mark.length)
                continue
            parity = await pool.take(self._row.parity_shards)
            crew.start(self._store(batch, data, parity, pool, placer, coder))

    def _mark(self, cut: Cut) -> None:
        """Record what a stripe is made of, or see that it is the same.

        Raises:
            SourceChanged: it is not.
        """
        known = self._catalog.mark(self._row.id, cut.mark)
        if known not in (None, cut.mark):
            raise SourceChanged(
                f"{self._source.name} is not what the upload of {self._row.name!r} began with",
                remedy="Put it anew with --replace",
            )
        self._lengths[cut.stripe.number] = cut.mark.length

    async def _store(
        self,
        batch: Batch,
        data: list[memoryview],
        parity: list[memoryview],
        pool: Pool,
        placer: Placer,
        coder: Coder,
    ) -> None:
        buffers = [*data, *parity]
        if len(batch.cuts) == 1 and batch.cuts[0].stripe.shard_size == len(data[0]):
            release = partial(_give_one, pool, buffers)
            await self._one(batch.cuts[0], data, parity, placer, coder, release)
            return
        crew = Crew()
        for cut in batch.cuts:
            if cut.stripe.number not in self._whole:
                crew.start(self._one(cut, data, parity, placer, coder, _keep))
            else:
                self._progress(cut.mark.length)
        await crew.finish()
        pool.give(buffers)

    async def _one(
        self,
        cut: Cut,
        data: list[memoryview],
        parity: list[memoryview],
        placer: Placer,
        coder: Coder,
        release: Callable[[int], None],
    ) -> None:
        views = cut.shards(data, parity)
        coded = asyncio.ensure_future(coder.encode(views[: len(data)], views[len(data) :]))
        try:
            await placer.store(Job(cut.stripe, views, coded, release))
        finally:
            await asyncio.wait([coded])  # it writes into buffers that somebody else may have next

    def _stored(self, stripe: Stripe) -> None:
        shards = self._row.data_shards + self._row.parity_shards
        self._progress(self._lengths[stripe.number] / shards)

    async def _complete(self, size: int, stripes: int) -> None:
        request = CompleteFile(
            size=ciphertext_size(size),
            stripes=stripes,
            spread=self._keys.spread,
            reader=self._keys.access.seed,
        )
        calls, peer = self._gateway.calls, self._gateway.peer
        state = await self._gateway.ask(
            lambda: calls.complete(peer, self._row.id, request, deadline=DEADLINE)
        )
        if state.state != "stored":
            raise GatewayError(
                f"the gateway has {self._row.name!r} as {state.state}, not as stored",
                remedy="Put the same again: it goes on from here",
            )


def _give_one(pool: Pool, buffers: list[memoryview], number: int) -> None:
    pool.give([buffers[number]])


def _keep(number: int) -> None:
    """Nothing: the buffers of a batch of several stripes are given back together."""
