"""A bundle: a directory with manifest.json and the files of one version.

    {"files": ["sft.jsonl", ...], "hash": optional 64 hex digits}        other keys are ignored

1. Names are single components; what they name are regular files in the directory itself, no symbolic links.
2. The artifact, which is what buyers fetch, is among the files that end in .jsonl the first whose name
   contains "sft" or "instruct", else the first.
3. The manifest hash is computed over all files that are listed. A "hash" that the bundle brings is compared
   with it, never believed.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TensorageError, UsageError
from .artifacts import Artifacts, changed, open_regular
from .chunks import Digest
from .manifest import MAX_FILES, File, manifest_hash
from .names import check_artifact_name
from .pipeline import SourceChangedError, Tell, hash_file, untold

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
_HINTS = ("sft", "instruct")
_HASH = re.compile("[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What manifest.json says: the files in its order, the artifact among them, the hash that it claims."""

    directory: Path
    names: tuple[str, ...]
    artifact: str
    claimed_hash: str | None


@dataclass(frozen=True, slots=True)
class Ingested:
    """A bundle whose artifact is in the store.

    Attributes:
        manifest_hash: over all files. `files`: of which, in the order of their names.
        digest: of the artifact, which is called `name` and lies at `path` in the store.
    """

    manifest_hash: bytes
    files: tuple[File, ...]
    name: str
    digest: Digest
    path: Path


def read_bundle(directory: Path, *, ignore_hash: bool = False) -> Bundle:
    """What a bundle says of itself; nothing is hashed yet.

    Args:
        ignore_hash: whatever it says of its hash.

    Raises:
        UsageError: it is no bundle.
    """
    path = directory / MANIFEST
    document = _parse(path, _read(path))
    names = _names(path, document.get("files"))
    claimed = None if ignore_hash else document.get("hash")
    if claimed is not None and (type(claimed) is not str or not _HASH.fullmatch(claimed.strip())):
        raise UsageError(
            f"{path}: hash {claimed!r:.80} is not 64 hex digits",
            remedy="Correct it, leave it out, or say --ignore-manifest-hash",
        )
    return Bundle(directory, names, choose_artifact(names), claimed and claimed.strip().lower())


def bundle_size(bundle: Bundle) -> int:
    """How many bytes the files of a bundle have now, as far as they are there; for a progress bar."""
    paths = [bundle.directory / name for name in bundle.names]
    return sum(path.stat().st_size for path in paths if path.is_file())


def choose_artifact(names: Sequence[str]) -> str:
    """The file that buyers fetch.

    Raises:
        UsageError: none ends in .jsonl.
    """
    lines = [name for name in names if name.lower().endswith(".jsonl")]
    if not lines:
        raise UsageError("no .jsonl artifact listed in manifest", remedy=f"List one in {MANIFEST}")
    return next((name for name in lines if any(hint in name.lower() for hint in _HINTS)), lines[0])


def ingest(
    bundle: Bundle, artifacts: Artifacts, *, ignore_hash: bool = False, tell: Tell = untold
) -> Ingested:
    """Copy the artifact of a bundle into the store, and hash all its files.

    Args:
        ignore_hash: take it although its claimed hash is another.
        tell: hears of so many more bytes that were read.

    Raises:
        UsageError: a file is missing, no regular file or changes, or the claimed hash is another.
        StorageError: the disk does not take it.
    """
    others = {
        name: _hashed(bundle.directory / name, tell) for name in bundle.names if name != bundle.artifact
    }
    with artifacts.copying(bundle.directory / bundle.artifact, tell) as copy:
        files = [File(bundle.artifact, copy.digest.size, copy.digest.sha256)]
        files += [File(name, size, sha256) for name, (size, sha256) in others.items()]
        files.sort(key=lambda file: file.name.encode())
        found = manifest_hash(files)
        if bundle.claimed_hash not in (None, found.hex()) and not ignore_hash:
            raise UsageError(
                f"{bundle.directory / MANIFEST} claims the hash {bundle.claimed_hash}, "
                f"its files have {found.hex()}",
                remedy="Export the bundle again, or take the files as they are with --ignore-manifest-hash",
            )
        return Ingested(found, tuple(files), bundle.artifact, copy.digest, copy.keep())


def _read(path: Path) -> bytes:
    if not path.parent.is_dir():
        raise UsageError(
            f"{path.parent} is no directory", remedy=f"Name a bundle: a directory with {MANIFEST}"
        )
    fd, found = open_regular(path)
    try:
        with open(fd, "rb") as file:  # noqa: PTH123 - the descriptor that was checked
            raw = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", remedy="Look at its disk") from error
    if len(raw) > MAX_MANIFEST_BYTES:
        raise UsageError(
            f"{path} has {found.st_size} bytes, at most {MAX_MANIFEST_BYTES} are read",
            remedy="List fewer files",
        )
    return raw


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", remedy="Export the bundle again") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no JSON object", remedy="Export the bundle again")
    return document


def _names(path: Path, names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(type(name) is str for name in names):
        raise UsageError(f'{path}: "files" is no list of names', remedy="List the files of the bundle in it")
    if len(names) > MAX_FILES:
        raise UsageError(f"{path} lists {len(names)} files, at most {MAX_FILES} are taken")
    try:
        for name in names:
            check_artifact_name(name)
    except (TensorageError, UnicodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UsageError(f"{path} lists {twice!r} twice", remedy="List it once")
    return tuple(names)


def _hashed(path: Path, tell: Tell) -> tuple[int, bytes]:
    fd, before = open_regular(path)
    try:
        digest = hash_file(fd, before.st_size, tell)
        after = os.fstat(fd)
    except SourceChangedError as error:
        raise changed(path) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    ):
        raise changed(path)
    return before.st_size, digest
