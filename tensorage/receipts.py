"""Receipts: what a validator asked, what came back, and what it made of it, in a signed hash chain.

    hash = H(tag("tensorage/receipt/v1") || genesis || u16 netuid || validator || u64 seq || prev_hash
             || u64 unix_ms || miner || commitment_hash || u64 block_number || block_hash || u32 round
             || u32 hops || u64 audited_sector || u32 elapsed_ms || u8 verdict || u16 length || reason
             || final_state || evidence_hash)

Every outcome becomes one, also those that move nothing. A receipt alone shows who was asked what, when, and
the verdict, in an order that the validator cannot change later. With the evidence (the bytes that the miner
answered), `recheck` repeats the verdict offline: the nonce follows from the fields, and the answer verifies,
or does not, against the commitment.

`audited_sector` is the index of the sector that a seal audit drew, and 2^64 - 1 in a challenge.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from . import challenge as challenges
from . import displaced, seal
from .challenge import Challenge
from .commitment import RESERVED_INDEX, Commitment
from .encoding import (
    HASH_SIZE,
    KEY_SIZE,
    SIGNATURE_SIZE,
    ZERO_HASH,
    fixed,
    from_hex,
    sha256,
    tag,
    u8,
    u16,
    u32,
    u64,
)
from .errors import ProofError
from .hashchain import Verify
from .ticket import SignedTicket

#: `audited_sector` of a receipt that is about a challenge.
NO_SECTOR = RESERVED_INDEX
MAX_REASON = 400


class Verdict(enum.Enum):
    """What a validator makes of one exchange; the value is its byte in a receipt."""

    PASSED = 0
    WRONG = 1
    LATE = 2
    REFUSED = 3
    UNREACHABLE = 4
    VALIDATOR_FAULT = 5

    @property
    def word(self) -> str:
        """The verdict as the protocol spells it, such as `validator_fault`."""
        return self.name.lower()

    @classmethod
    def from_word(cls, word: str) -> Verdict:
        """The verdict spelt so; ValueError when there is none."""
        if word != word.lower() or word.upper() not in cls.__members__:
            raise ValueError(f"there is no verdict {word!r}")
        return cls[word.upper()]


@dataclass(frozen=True)
class Receipt:
    """One record. Hashes and keys are 32 bytes; final_state and evidence_hash are zero without a proof."""

    genesis: bytes
    netuid: int
    validator: bytes
    seq: int
    prev_hash: bytes
    unix_ms: int
    miner: bytes
    commitment_hash: bytes
    block_number: int
    block_hash: bytes
    round: int
    hops: int
    audited_sector: int
    elapsed_ms: int
    verdict: Verdict
    reason: str
    final_state: bytes = ZERO_HASH
    evidence_hash: bytes = ZERO_HASH

    @cached_property
    def hash(self) -> bytes:
        """The 32 bytes that the validator signs."""
        reason = self.reason.encode()
        return sha256(
            tag("tensorage/receipt/v1")
            + fixed(self.genesis, HASH_SIZE, "genesis hash")
            + u16(self.netuid)
            + fixed(self.validator, KEY_SIZE, "validator key")
            + u64(self.seq)
            + fixed(self.prev_hash, HASH_SIZE, "prev_hash")
            + u64(self.unix_ms)
            + fixed(self.miner, KEY_SIZE, "miner key")
            + fixed(self.commitment_hash, HASH_SIZE, "commitment hash")
            + u64(self.block_number)
            + fixed(self.block_hash, HASH_SIZE, "block hash")
            + u32(self.round)
            + u32(self.hops)
            + u64(self.audited_sector)
            + u32(self.elapsed_ms)
            + u8(self.verdict.value)
            + u16(len(reason))
            + reason
            + fixed(self.final_state, HASH_SIZE, "final state")
            + fixed(self.evidence_hash, HASH_SIZE, "evidence hash")
        )

    @property
    def is_audit(self) -> bool:
        """Whether it is about a seal audit rather than a challenge."""
        return self.audited_sector != NO_SECTOR

    @property
    def challenge(self) -> Challenge:
        """The challenge that was put."""
        return Challenge(
            self.block_hash, self.netuid, self.validator, self.miner, self.commitment_hash, self.round
        )


def line(text: str) -> str:
    """`text` as a reason: one printable line of at most 400 bytes of UTF-8."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean.encode()[:MAX_REASON].decode(errors="ignore")


def recheck(
    receipt: Receipt,
    commitment: Commitment,
    evidence: bytes,
    verify: Verify,
    slots: Mapping[int, SignedTicket] | None = None,
) -> Verdict:
    """Repeat the verdict of a receipt from its evidence: PASSED or WRONG.

    Args:
        commitment: the one that the receipt names.
        evidence: what the miner sent, byte for byte: an answer, or for an audit the chunk roots.
        slots: tickets by chunk of the audited sector. One that nobody signed for this miner, or that does not
            make the chunk what it is, counts for nothing. So a miner that was called a fraud over a client's
            shard clears itself by showing the ticket; that its signer was a validator, with a share that bore
            it, is for whoever asks to see on the chain.

    Raises:
        ProofError: commitment or evidence is not what the receipt is about.
    """
    if commitment.hash != receipt.commitment_hash:
        raise ProofError(f"receipt {receipt.seq} is about another commitment")
    if sha256(evidence) != receipt.evidence_hash:
        raise ProofError(f"receipt {receipt.seq} is about other evidence")
    if receipt.is_audit:
        profile = seal.profile(commitment.profile)
        sector = seal.sector_id(
            commitment.genesis, commitment.netuid, commitment.miner, profile, receipt.audited_sector
        )
        if len(evidence) != profile.chunks * HASH_SIZE:
            return Verdict.WRONG
        tickets = {
            chunk: signed.ticket
            for chunk, signed in (slots or {}).items()
            if displaced.is_for(signed, commitment, verify)
        }
        roots = [evidence[at : at + HASH_SIZE] for at in range(0, len(evidence), HASH_SIZE)]
        sealed = displaced.seal_again(seal.Sealer(profile), sector, tickets)
        return Verdict.WRONG if displaced.compare(roots, sealed, tickets).false else Verdict.PASSED
    try:
        walk = challenges.verify_answer(receipt.challenge.nonce, receipt.hops, commitment, evidence, verify)
    except ProofError:
        return Verdict.WRONG
    if walk.final_state != receipt.final_state:
        raise ProofError(f"receipt {receipt.seq} states another end of the walk")
    return Verdict.PASSED


_SIZES = {
    "genesis": HASH_SIZE,
    "validator": KEY_SIZE,
    "prev_hash": HASH_SIZE,
    "miner": KEY_SIZE,
    "commitment_hash": HASH_SIZE,
    "block_hash": HASH_SIZE,
    "final_state": HASH_SIZE,
    "evidence_hash": HASH_SIZE,
}


def to_json(receipt: Receipt, signature: bytes) -> dict[str, Any]:
    """The receipt as JSON: bytes in hex, the verdict as its word, with `hash` and `signature`."""
    out: dict[str, Any] = {}
    for field in fields(receipt):
        value = getattr(receipt, field.name)
        if isinstance(value, Verdict):
            value = value.word
        out[field.name] = value.hex() if isinstance(value, bytes) else value
    return out | {"hash": receipt.hash.hex(), "signature": signature.hex()}


def from_json(document: Mapping[str, Any]) -> tuple[Receipt, bytes]:
    """The receipt and signature that a JSON object says; the stated hash must be the true one.

    Raises:
        ProofError: a field is missing, unknown, of the wrong type or out of range.
    """
    names = {field.name for field in fields(Receipt)}
    if set(document) != names | {"hash", "signature"}:
        raise ProofError(f"a receipt has the fields {sorted(names)}, hash and signature")
    values: dict[str, Any] = {}
    try:
        for name in names:
            value = document[name]
            if name in _SIZES:
                values[name] = from_hex(_typed(value, str, name), _SIZES[name], name)
            elif name == "verdict":
                values[name] = Verdict.from_word(_typed(value, str, name))
            else:
                values[name] = _typed(value, str if name == "reason" else int, name)
        receipt = Receipt(**values)
        signature = from_hex(_typed(document["signature"], str, "signature"), SIGNATURE_SIZE, "signature")
        true_hash = receipt.hash.hex()
    except (ValueError, OverflowError, TypeError) as error:
        raise ProofError(f"not a receipt: {error}") from error
    if document["hash"] != true_hash:
        raise ProofError(f"receipt {receipt.seq} states a hash that is not that of its fields")
    return receipt, signature


def _typed(value: Any, kind: type, name: str) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{name} must be {kind.__name__}")
    return value
