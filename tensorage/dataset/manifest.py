"""The manifest of a version: which files the owner published, and the one hash that stands for all of them.

    manifest hash = H(JCS({"files": [{"name": ..., "sha256": hex, "size": ...}, ...]}))

JCS is the JSON Canonicalization Scheme, RFC 8785. Files are sorted by the UTF-8 bytes of their names, and
no two have one name. Sizes are bytes, at most 2^53 - 1, which is what JSON can carry between any two
readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import rfc8785

from ..encoding import HASH_SIZE, fixed, sha256
from ..errors import ProofError, UsageError
from .names import check_artifact_name

#: The largest integer that JSON carries unharmed (RFC 7493, section 2.2).
MAX_INTEGER = 2**53 - 1
MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class File:
    """One file of a bundle: its name, its size in bytes and the SHA-256 of its bytes."""

    name: str
    size: int
    sha256: bytes

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 0 <= self.size <= MAX_INTEGER:
            raise ProofError(f"file {self.name[:80]!r} has size {self.size!r:.40}, not 0 to 2^53 - 1")
        try:
            check_artifact_name(self.name)
            fixed(self.sha256, HASH_SIZE, f"SHA-256 of file {self.name!r}")
        except (UsageError, ValueError) as error:
            raise ProofError(f"manifest: {error}") from error


def canonical(obj: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value.

    Raises:
        ProofError: it is no JSON value: an integer beyond 2^53 - 1, NaN, a lone surrogate, a foreign type.
    """
    try:
        return rfc8785.dumps(obj)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise ProofError(f"this has no canonical JSON: {error}") from error


def manifest_json(files: Sequence[File]) -> dict[str, Any]:
    """The manifest as JSON, files in their order.

    Raises:
        ProofError: no file, too many, or two with one name.
    """
    if not 0 < len(files) <= MAX_FILES:
        raise ProofError(f"a manifest has 1 to {MAX_FILES} files, not {len(files)}")
    ordered = sorted(files, key=lambda file: file.name.encode())
    for before, file in pairwise(ordered):
        if before.name == file.name:
            raise ProofError(f"two files of the manifest have the name {file.name!r}")
    return {"files": [{"name": f.name, "size": f.size, "sha256": f.sha256.hex()} for f in ordered]}


def manifest_hash(files: Sequence[File]) -> bytes:
    """The hash of a manifest of these files, given in any order.

    Raises:
        ProofError: as manifest_json.
    """
    return sha256(canonical(manifest_json(files)))
