"""Receipts as a file, and checking such a file offline: nothing in it is believed.

    {"receipts": [as receipts.to_json],
     "commitments": {hash: {"miner": key, ... as /v1/commitment}},     what the receipts are about
     "listings":    {commitment hash: 40 bytes a sector},              of commitments with a wrong audit
     "evidence":    {SHA-256: bytes},                                  what was answered, for wrong ones
     "slots":       {displaced.slots_key: displaced.encode_slots}}     of audits that met clients' shards

Bytes are hex. The last four may be missing: a page of `GET /v1/receipts` is such a file too. Receipts of all
miners must follow each other without a gap; those of one miner alone have gaps where others stand.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..commitment import SignedCommitment, check_listing, sector_root
from ..displaced import decode_slots, slots_key
from ..encoding import HASH_SIZE, KEY_SIZE, ZERO_HASH, from_hex
from ..errors import ProofError, RequestError, UsageError
from ..hashchain import Verify, check_link, check_signature
from ..receipts import NO_SECTOR, Receipt, Verdict, from_json, recheck
from ..transport.messages import CommitmentMessage, parse
from . import rows
from .ledger import connect_read_only


@dataclass
class Checked:
    """What checking a file found. All of it verified, or an error was raised.

    Attributes:
        first, last: seq of the first and last receipt, 0 when there are none.
        links: receipts that follow the one before at once; `gaps`: that do not.
        repeated: verdicts that were reached again from the evidence.
        unproven: wrong verdicts without the evidence to repeat them.
        verdicts: receipts by verdict.
    """

    receipts: int
    first: int
    last: int
    links: int
    gaps: int
    repeated: int
    unproven: int
    verdicts: dict[str, int]


def export(
    path: Path, *, start: int = 1, limit: int | None = None, miner: bytes | None = None
) -> dict[str, Any]:
    """The document for receipts of a ledger, which may be in use.

    Args:
        start: the first seq.
        miner: public key; only receipts about it.

    Raises:
        UsageError: there is no such ledger.
    """
    with closing(connect_read_only(path)) as db:
        keep = "" if miner is None else " AND miner = :miner"
        found = db.execute(
            f"SELECT document FROM receipts WHERE seq >= :start{keep} ORDER BY seq LIMIT :limit",  # noqa: S608
            {"start": start, "miner": miner, "limit": -1 if limit is None else limit},
        ).fetchall()
        documents = [json.loads(row["document"]) for row in found]
        commitments = {
            digest: {"miner": about["miner"], **json.loads(message)}
            for digest, about in {document["commitment_hash"]: document for document in documents}.items()
            if (message := _one(db, "SELECT message FROM commitments WHERE hash = ?", digest)) is not None
        }
        statement = "SELECT data FROM evidence WHERE hash = ?"
        evidence = {
            digest: data.hex()
            for digest in sorted({document["evidence_hash"] for document in documents})
            if (data := _one(db, statement, digest)) is not None
        }
        audited = {
            document["commitment_hash"]
            for document in documents
            if document["verdict"] == Verdict.WRONG.word and document["evidence_hash"] in evidence
        }
        listings = {
            digest: data.hex()
            for digest in sorted(audited)
            if (data := _one(db, statement, digest)) is not None
        }
        keys = {
            slots_key(bytes.fromhex(document["commitment_hash"]), document["audited_sector"]).hex()
            for document in documents
            if document["audited_sector"] != NO_SECTOR
        }
        slots = {key: data.hex() for key in sorted(keys) if (data := _one(db, statement, key)) is not None}
    return {
        "receipts": documents,
        "commitments": commitments,
        "listings": listings,
        "evidence": evidence,
        "slots": slots,
    }


def check(
    document: Any,
    verify: Verify,
    *,
    seal_audits: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Check a file of receipts.

    Args:
        seal_audits: whether audits are repeated too, at the price of sealing a sector each.
        progress: told (done, total) receipts.

    Raises:
        UsageError: it is no such file. ProofError: the first thing in it that is not true.
    """
    receipts, commitments, blobs = _parts(document)
    found = Checked(len(receipts), 0, 0, 0, 0, 0, 0, {verdict.word: 0 for verdict in Verdict})
    one_miner = len({receipt.miner for receipt, _ in receipts}) == 1
    previous: Receipt | None = None
    for number, (receipt, signature) in enumerate(receipts):
        author = receipts[0][0]
        if (receipt.validator, receipt.genesis, receipt.netuid) != (
            author.validator,
            author.genesis,
            author.netuid,
        ):
            raise ProofError(f"receipt {receipt.seq} is of another validator, chain or subnet")
        check_signature(receipt, author.validator, signature, verify)
        _check_place(previous, receipt, found, gaps=one_miner)
        commitment = commitments.get(receipt.commitment_hash)
        if commitment is not None:
            commitment.check(verify)
        _repeat(receipt, commitment, blobs, verify, found, seal_audits=seal_audits)
        found.verdicts[receipt.verdict.word] += 1
        previous = receipt
        progress(number + 1, len(receipts))
    if receipts:
        found.first, found.last = receipts[0][0].seq, receipts[-1][0].seq
    return found


def _check_place(previous: Receipt | None, receipt: Receipt, found: Checked, *, gaps: bool) -> None:
    if previous is None:
        if (receipt.seq == 1) != (receipt.prev_hash == ZERO_HASH):
            raise ProofError(f"receipt {receipt.seq} has the prev_hash {receipt.prev_hash.hex()}")
        return
    if receipt.seq <= previous.seq:
        raise ProofError(f"receipt {receipt.seq} stands after {previous.seq}")
    if gaps and receipt.seq > previous.seq + 1:
        found.gaps += 1
        return
    check_link(previous, receipt)
    found.links += 1


def _repeat(
    receipt: Receipt,
    commitment: SignedCommitment | None,
    blobs: _Blobs,
    verify: Verify,
    found: Checked,
    *,
    seal_audits: bool,
) -> None:
    """Repeat one verdict, if there is what it takes."""
    if receipt.verdict not in (Verdict.WRONG, Verdict.PASSED):
        return
    data = blobs["evidence"].get(receipt.evidence_hash)
    possible = data is not None and commitment is not None and (seal_audits or not receipt.is_audit)
    if possible and receipt.is_audit and receipt.verdict is Verdict.WRONG:
        assert data is not None
        assert commitment is not None
        possible = _is_committed(receipt, commitment, blobs["listings"], data)
    if not possible:
        found.unproven += receipt.verdict is Verdict.WRONG
        return
    assert data is not None
    assert commitment is not None
    slots = blobs["slots"].get(slots_key(receipt.commitment_hash, receipt.audited_sector), b"")
    verdict = recheck(receipt, commitment.commitment, data, verify, decode_slots(slots))
    if verdict is not receipt.verdict:
        raise ProofError(
            f"receipt {receipt.seq} says {receipt.verdict.word}, its evidence says {verdict.word}"
        )
    found.repeated += 1


def _is_committed(
    receipt: Receipt, commitment: SignedCommitment, listings: Mapping[bytes, bytes], roots: bytes
) -> bool:
    """Whether chunk roots are those that the miner committed to: only then do they speak against it."""
    listing = listings.get(receipt.commitment_hash)
    if listing is None:
        return False
    entries = rows.read_entries(listing)
    check_listing(commitment.commitment, entries)
    chunks = [roots[at : at + HASH_SIZE] for at in range(0, len(roots), HASH_SIZE)]
    return dict(entries).get(receipt.audited_sector) == sector_root(chunks)


#: The parts of a document that are bytes, by name and then by hash or key.
_Blobs = Mapping[str, Mapping[bytes, bytes]]
_BLOBS = ("listings", "evidence", "slots")


def _parts(
    document: Any,
) -> tuple[list[tuple[Receipt, bytes]], dict[bytes, SignedCommitment], _Blobs]:
    if not isinstance(document, dict) or not isinstance(document.get("receipts"), list):
        raise UsageError(
            "the file has no list of receipts", remedy="Make one with: tensorage receipts export"
        )
    receipts = [from_json(_object(item, "a receipt")) for item in document["receipts"]]
    if not receipts:
        return [], {}, {}
    about = receipts[0][0]
    commitments = {}
    for digest, item in _object(document.get("commitments", {}), "commitments").items():
        fields = dict(_object(item, "a commitment"))
        try:
            miner = from_hex(str(fields.pop("miner", "")), KEY_SIZE, "miner")
            message = parse(CommitmentMessage, json.dumps(fields).encode())
        except (ValueError, RequestError) as error:
            raise ProofError(f"commitment {digest}: {error}") from error
        signed = message.signed(genesis=about.genesis, netuid=about.netuid, miner=miner)
        commitments[signed.commitment.hash] = signed
    return receipts, commitments, {name: _blobs(document, name) for name in _BLOBS}


def _blobs(document: Mapping[str, Any], name: str) -> dict[bytes, bytes]:
    try:
        return {
            from_hex(digest, HASH_SIZE, name): bytes.fromhex(data)
            for digest, data in _object(document.get(name, {}), name).items()
        }
    except (ValueError, TypeError) as error:
        raise ProofError(f"{name}: {error}") from error


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ProofError(f"{what} must be a JSON object")
    return value


def _one(db: sqlite3.Connection, statement: str, digest: str) -> Any:
    row = db.execute(statement, (bytes.fromhex(digest),)).fetchone()
    return row[0] if row else None
