"""What is asked of others for clients' files: of miners (`miner_calls`), of gateways (`gateway_calls`)."""

from __future__ import annotations

from .gateway_calls import GatewayCalls
from .miner_calls import SHARD_SECONDS, TICKET_HEADER, MinerCalls

__all__ = ["SHARD_SECONDS", "TICKET_HEADER", "GatewayCalls", "MinerCalls"]
