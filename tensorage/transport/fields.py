"""The fields of the messages for files: bounded numbers, checked addresses, bytes as lower-case hex."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from .. import seal, shard
from ..chain.address import public_key
from ..encoding import HASH_SIZE
from ..ticket import TICKET_SIZE

#: Most shards of a stripe, of all kinds (what `zfec` can code).
MOST_SHARDS = 256
#: Bytes of a file's number, the first of the hash of its public key.
FILE_ID_SIZE = 16
#: Chunks of the largest sector.
MOST_CHUNKS = max(profile.chunks for profile in seal.PROFILES.values())

_LOWER_HEX = re.compile(r"(?:[0-9a-f]{2})*")


def _read_hex(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not _LOWER_HEX.fullmatch(value):
        raise ValueError("the value must be lower-case hex without prefix")
    return bytes.fromhex(value)


_write_hex = PlainSerializer(lambda value: value.hex(), return_type=str, when_used="json")


def _ss58(value: str) -> str:
    public_key(value)
    return value


def _ip(value: str) -> str:
    return str(ip_address(value))


def _shard_leaves(value: int) -> int:
    if value not in shard.SHARD_LEAVES:
        raise ValueError(f"no shard has {value} leaves")
    return value


TicketBytes = Annotated[
    bytes, Field(min_length=TICKET_SIZE, max_length=TICKET_SIZE), BeforeValidator(_read_hex), _write_hex
]
#: The chunk roots of a sector, one behind the other.
Roots = Annotated[
    bytes,
    Field(min_length=HASH_SIZE, max_length=MOST_CHUNKS * HASH_SIZE),
    BeforeValidator(_read_hex),
    _write_hex,
]
FileId = Annotated[
    bytes, Field(min_length=FILE_ID_SIZE, max_length=FILE_ID_SIZE), BeforeValidator(_read_hex), _write_hex
]
Ss58 = Annotated[str, Field(max_length=64), AfterValidator(_ss58)]
Ip = Annotated[str, Field(max_length=64), AfterValidator(_ip)]
Port = Annotated[int, Field(ge=1, lt=1 << 16)]
Leaves = Annotated[int, Field(ge=shard.LEAST_LEAVES, le=shard.MOST_LEAVES), AfterValidator(_shard_leaves)]
Text = Annotated[str, Field(max_length=200)]
U16 = Annotated[int, Field(ge=0, lt=1 << 16)]
ChunkNumber = Annotated[int, Field(ge=0, lt=MOST_CHUNKS)]
DataShards = Annotated[int, Field(ge=1, le=MOST_SHARDS)]
ParityShards = Annotated[int, Field(ge=0, lt=MOST_SHARDS)]
