"""Publishing where our axon listens.

The chain keeps the record of a neuron until it is changed, and takes a change at most every so many blocks;
each one costs a fee. So what stands there already is not sent again, and a change waits for its height.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
from bittensor import Client, ErrorCode, storage
from bittensor.intents import ServeAxon

from ..errors import ChainError, UsageError
from . import convert
from .connection import Connection, retry_delay
from .types import Endpoint
from .writer import INCLUDED, Writer

log = logging.getLogger(__name__)
_state = storage.SubtensorModule


def publish_from(record: convert.AxonRecord | None, wanted: Endpoint, rate_limit: int) -> int | None:
    """The first height at which `wanted` may be published; None when the chain has it already."""
    if record is None:
        return 0
    if record.endpoint == wanted:
        return None
    return record.block + rate_limit if record.block > 0 and rate_limit > 0 else 0


class AxonPublisher:
    """Brings the chain's record of our axon up to date."""

    def __init__(self, connection: Connection, writer: Writer) -> None:
        self._connection = connection
        self._writer = writer
        self._netuid = connection.settings.netuid

    async def publish(self, endpoint: Endpoint) -> bool:
        """As `Chain.serve_axon`."""
        intent = ServeAxon(netuid=self._netuid, ip=endpoint.ip, port=endpoint.port)
        announced, failures, said = False, 0, ""
        while True:
            try:
                head, start = await self._window(endpoint)
            except ChainError as error:
                log.debug("axon record not read error=%r", error.message)
                failures += 1
                await self._connection.pause(failures)
                continue
            block_time = self._connection.block_time or 0
            if start is None:
                return announced
            if head < start:
                log.info("axon record may change later axon=%s height=%d from=%d", endpoint, head, start)
                await anyio.sleep((start - head) * block_time)
                continue
            sent = await self._writer.send(lambda client, key: client.execute(intent, key, **INCLUDED))
            if sent.status == "done":
                log.info("axon published axon=%s block=%s", endpoint, sent.block)
                return True
            announced = announced or sent.status == "unknown"
            if sent.status == "failed" and sent.code is ErrorCode.INVALID_ARGUMENT:
                raise UsageError(
                    f"the chain does not take {endpoint} as an axon: {sent.message}",
                    remedy="Give another address with --axon.external_ip and --axon.external_port",
                )
            if sent.message != said:
                said = sent.message
                log.warning("axon not published yet axon=%s status=%s reason=%r", endpoint, sent.status, said)
            failures += 1
            await anyio.sleep(max(2 * block_time, retry_delay(failures, 0.5)))

    async def _window(self, wanted: Endpoint) -> tuple[int, int | None]:
        """The height, and from which one our record may be changed; None when it needs no change."""
        key = self._writer.hotkey.ss58

        async def ask(client: Client) -> tuple[int, Any, convert.AxonRecord | None, Any]:
            view = await client.at()
            uid, record, limit = await asyncio.gather(
                view.query(_state.Uids, [self._netuid, key]),
                view.query(_state.Axons, [self._netuid, key]),
                view.query(_state.ServingRateLimit, [self._netuid]),
            )
            return view.block, uid, convert.axon_record(record), limit

        head, uid, record, limit = await self._connection.read("the axon record", ask)
        if uid is None:
            raise self._writer.not_registered()
        return head, publish_from(record, wanted, int(limit or 0))
