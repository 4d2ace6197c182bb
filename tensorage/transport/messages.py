"""The JSON messages of the protocol ("On the wire" of proof of storage v1) as pydantic models.

Strict: no unknown fields, no conversions, every number and list bounded. Bytes are `bytes` in Python and
lower-case hex without prefix in JSON. `parse` is the one way in: whatever the bytes are, it returns a model
or raises RequestError "malformed".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from ..challenge import MAX_HOPS
from ..commitment import Commitment, SignedCommitment
from ..encoding import HASH_SIZE, SIGNATURE_SIZE, from_hex
from ..errors import ProofError, RequestError
from ..receipts import Receipt, from_json, to_json
from .refusals import one_line

#: Most entries of one `/v1/sectors` page, and most receipts of one `/v1/receipts` page.
SECTORS_PAGE = 4096
RECEIPTS_PAGE = 256


def _hex(size: int) -> Callable[[object], object]:
    def read(value: object) -> object:
        return from_hex(value, size, "the value") if isinstance(value, str) else value

    return read


_write_hex = PlainSerializer(lambda value: value.hex(), return_type=str, when_used="json")

Hash = Annotated[
    bytes, Field(min_length=HASH_SIZE, max_length=HASH_SIZE), BeforeValidator(_hex(HASH_SIZE)), _write_hex
]
Signature = Annotated[
    bytes,
    Field(min_length=SIGNATURE_SIZE, max_length=SIGNATURE_SIZE),
    BeforeValidator(_hex(SIGNATURE_SIZE)),
    _write_hex,
]
U8 = Annotated[int, Field(ge=0, lt=1 << 8)]
U32 = Annotated[int, Field(ge=0, lt=1 << 32)]
U64 = Annotated[int, Field(ge=0, lt=1 << 64)]


class Message(BaseModel):
    """Base of all messages."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Ping(Message):
    """Answer of `GET /v1/ping`: who is there. `spec_version` is the weights' version key."""

    role: Literal["miner", "validator"]
    version: Annotated[str, Field(max_length=64)]
    spec_version: U32
    hotkey: Annotated[str, Field(max_length=64)]
    protocols: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=32)]


class CommitmentMessage(Message):
    """Answer of `GET /v1/commitment`: a signed capacity commitment; genesis, netuid and miner are known."""

    seq: Annotated[U64, Field(ge=1)]
    prev_hash: Hash
    profile: U8
    sector_count: U64
    capacity_root: Hash
    block_number: U64
    hash: Hash
    signature: Signature

    @classmethod
    def of(cls, signed: SignedCommitment) -> CommitmentMessage:
        """The message that carries a signed commitment."""
        c = signed.commitment
        return cls(
            seq=c.seq,
            prev_hash=c.prev_hash,
            profile=c.profile,
            sector_count=c.sector_count,
            capacity_root=c.capacity_root,
            block_number=c.block_number,
            hash=c.hash,
            signature=signed.signature,
        )

    def signed(self, *, genesis: bytes, netuid: int, miner: bytes) -> SignedCommitment:
        """The commitment of `miner` (32-byte key) that this message carries; its signature is unchecked.

        Raises:
            ProofError: `hash` is not the hash of the fields, on this chain and for this miner.
        """
        commitment = Commitment(
            genesis=genesis,
            netuid=netuid,
            miner=miner,
            seq=self.seq,
            prev_hash=self.prev_hash,
            profile=self.profile,
            sector_count=self.sector_count,
            capacity_root=self.capacity_root,
            block_number=self.block_number,
        )
        if commitment.hash != self.hash:
            raise ProofError(
                f"commitment {self.seq} has the hash {commitment.hash.hex()}, not {self.hash.hex()}"
            )
        return SignedCommitment(commitment, self.signature)


class SectorsPage(Message):
    """Answer of `GET /v1/sectors`: a run of the newest commitment's entries, in ascending sector index."""

    indices: Annotated[list[U64], Field(max_length=SECTORS_PAGE)]
    roots: Annotated[list[Hash], Field(max_length=SECTORS_PAGE)]

    @model_validator(mode="after")
    def _entries(self) -> SectorsPage:
        if len(self.indices) != len(self.roots):
            raise ValueError(f"{len(self.indices)} indices do not go with {len(self.roots)} roots")
        if any(a >= b for a, b in zip(self.indices, self.indices[1:], strict=False)):
            raise ValueError("sector indices must ascend")
        return self


class ChallengeMessage(Message):
    """Body of `POST /v1/challenge`; validator and miner are sender and receiver of the request."""

    commitment: Hash
    block_number: U64
    block_hash: Hash
    round: U32
    hops: Annotated[int, Field(ge=1, le=MAX_HOPS)]


class ReceiptsPage(Message):
    """Answer of `GET /v1/receipts`: the caller's receipts in order, each as `receipts.to_json` writes it.

    `next` is the `from` of the next page, absent after the last one.
    """

    receipts: Annotated[
        list[dict[Annotated[str, Field(max_length=32)], Annotated[str, Field(max_length=512)] | U64]],
        Field(max_length=RECEIPTS_PAGE),
    ]
    next: U64 | None = None

    @classmethod
    def of(cls, signed: Sequence[tuple[Receipt, bytes]], following: int | None) -> ReceiptsPage:
        """The page that carries (receipt, signature) pairs."""
        return cls(receipts=[to_json(receipt, signature) for receipt, signature in signed], next=following)

    def signed(self) -> list[tuple[Receipt, bytes]]:
        """The receipts and their signatures, which are unchecked.

        Raises:
            ProofError: one is no receipt.
        """
        return [from_json(document) for document in self.receipts]


class ErrorMessage(BaseModel):
    """A refusal, as a peer of any version may phrase it."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    error: str
    message: str = ""


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: bytes) -> M:
    """The message that JSON `data` holds.

    Raises:
        RequestError: "malformed"; the first thing that is wrong, and where.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(
            "malformed", one_line(f"{where}: {first['msg']}" if where else first["msg"])
        ) from None
