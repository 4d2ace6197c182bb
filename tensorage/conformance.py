"""Test vectors: what the protocol makes of an input, for comparing another implementation with this one.

The shape of input and output is that of tests/vectors/pos-v1-dev.json: every derived value, from sector ids
to the end of a walk, from the smallest set of ingredients. An input with a `kind` is of a dataset's version
log, in the shapes of tests/vectors/dataset-log.json.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from tempfile import TemporaryFile
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from . import challenge as challenges
from . import commitment as commitments
from . import merkle, seal
from .challenge import Challenge
from .errors import UsageError

_REMEDY = "`tensorage conformance --help` says what it has"

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class CommitmentInput(_Model):
    """Place of the commitment in its chain; `block` is its block number."""

    seq: Annotated[int, Field(ge=1, lt=2**64)]
    prev_hash: Hash
    block: Annotated[int, Field(ge=0, lt=2**64)]


class ChallengeInput(_Model):
    """Ingredients of the nonce that are not in the commitment, and how many hops to walk."""

    block_hash: Hash
    round: Annotated[int, Field(ge=0, lt=2**32)]
    hops: Annotated[int, Field(ge=0, le=challenges.MAX_HOPS)]


class VectorInput(_Model):
    """Input of a proof-of-storage vector; keys are public keys in hex, sectors are indices."""

    genesis: Hash
    netuid: Annotated[int, Field(ge=0, lt=2**16)]
    miner: Hash
    validator: Hash
    profile: Annotated[int, Field(ge=0, le=1)]
    sectors: Annotated[list[Annotated[int, Field(ge=0, lt=2**64)]], Field(min_length=1, max_length=4096)]
    commitment: CommitmentInput
    challenge: ChallengeInput


def vector(document: Any) -> dict[str, Any]:
    """The vector for an input {genesis, netuid, miner, validator, profile, sectors, commitment, challenge}.

    One with a `kind` is of a dataset: {kind: "dataset-v1", private_key, entries} or {kind: "dataset-v2", id,
    owner, entries}.

    Raises:
        UsageError: the input has another shape.
    """
    try:
        if isinstance(document, dict) and "kind" in document:
            from .dataset import vectors  # noqa: PLC0415 - loads the SDK, for its keys

            return vectors.vector(document)
        return _vector(VectorInput.model_validate(document))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "all of it"
        raise UsageError(f"input of a vector: {place}: {first['msg']}", remedy=_REMEDY) from error
    except ValueError as error:
        raise UsageError(f"input of a vector: {error}", remedy=_REMEDY) from error


def _vector(given: VectorInput) -> dict[str, Any]:
    genesis, miner = bytes.fromhex(given.genesis), bytes.fromhex(given.miner)
    profile = seal.profile(given.profile)
    sealer = seal.Sealer(profile)
    sectors, entries = [], []
    with TemporaryFile() as disk:
        for index in sorted(given.sectors):
            sector_id = seal.sector_id(genesis, given.netuid, miner, profile, index)
            data = sealer.seal(sector_id)
            root = merkle.root(merkle.leaf_hashes(data, seal.LEAF_SIZE))
            entries.append((index, root))
            sectors.append(
                {
                    "index": index,
                    "sector_id": sector_id.hex(),
                    "sha256_of_sealed_bytes": sha256(data).hexdigest(),
                    "first_leaf_first_16": bytes(data[:16]).hex(),
                    "last_leaf_last_16": bytes(data[-16:]).hex(),
                    "sector_root": root.hex(),
                }
            )
            disk.write(data)

        def leaf(number: int) -> bytes:
            disk.seek(number * seal.LEAF_SIZE)
            return disk.read(seal.LEAF_SIZE)

        return _walked(given, entries, sectors, leaf)


def _walked(
    given: VectorInput,
    entries: list[commitments.Entry],
    sectors: list[dict[str, Any]],
    leaf: Callable[[int], bytes],
) -> dict[str, Any]:
    """The vector over sealed sectors; `leaf` reads one by its number in all of them."""
    genesis, miner = bytes.fromhex(given.genesis), bytes.fromhex(given.miner)
    commitment = commitments.Commitment(
        genesis,
        given.netuid,
        miner,
        given.commitment.seq,
        bytes.fromhex(given.commitment.prev_hash),
        given.profile,
        len(entries),
        commitments.capacity_root(entries),
        given.commitment.block,
    )
    challenge = Challenge(
        bytes.fromhex(given.challenge.block_hash),
        given.netuid,
        bytes.fromhex(given.validator),
        miner,
        commitment.hash,
        given.challenge.round,
    )

    indices: list[int] = []
    state = challenge.nonce
    for _ in range(given.challenge.hops):
        indices.append(challenges.leaf_index(state, commitment.leaves))
        state = challenges.next_state(state, leaf(indices[-1]))
    return {
        "genesis": given.genesis,
        "netuid": given.netuid,
        "miner": given.miner,
        "validator": given.validator,
        "profile": given.profile,
        "sectors": sectors,
        "capacity_root": commitment.capacity_root.hex(),
        "commitment": {
            "seq": commitment.seq,
            "prev_hash": given.commitment.prev_hash,
            "block": commitment.block_number,
            "hash": commitment.hash.hex(),
        },
        "challenge": {
            "block_hash": given.challenge.block_hash,
            "round": given.challenge.round,
            "nonce": challenge.nonce.hex(),
            "hops": given.challenge.hops,
            "leaf_indices": indices,
            "final_state": state.hex(),
        },
    }
