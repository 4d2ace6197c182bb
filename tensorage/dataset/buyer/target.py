"""Where a file shall go: what it is to become, what stands there already, whether it fits."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import StorageError, UsageError

_READ = 4 << 20
_SIDECAR_BYTES = 4096
#: What a sidecar may say beside the goal.
VALIDATOR = "validator"


@dataclass(frozen=True)
class Goal:
    """What a file is to become, as the owner signed it. Sizes in bytes.

    Attributes:
        chunk_root: 32 bytes; empty in logs of version 1, which sign none.
    """

    root_owner: str
    id: str
    seq: int
    file_hash: bytes
    size: int
    chunk_root: bytes

    def sidecar(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "rootOwner": self.root_owner,
            "id": self.id,
            "seq": self.seq,
            "fileHash": self.file_hash.hex(),
            "size": self.size,
            "chunkRoot": self.chunk_root.hex(),
        }


class TakenError(UsageError):
    """Something else stands where the file shall go."""


def check_target(out: Path, goal: Goal, *, force: bool) -> bool:
    """Look at where the file shall go; returns whether it is there already, whole and right.

    Raises:
        TakenError: something else is there.
        UsageError: the directory is not.
    """
    try:
        found = out.lstat()
    except FileNotFoundError:
        if not out.parent.is_dir():
            raise UsageError(
                f"{out.parent} is no directory", remedy="Make it, or name another --out"
            ) from None
        return False
    except (OSError, ValueError) as error:
        raise UsageError(f"{out} cannot be used: {error}", remedy="Name another --out") from error
    if not stat.S_ISREG(found.st_mode):
        raise TakenError(f"{out} is there and is no regular file", remedy="Remove it, or name another --out")
    if found.st_size == goal.size and hash_file(out, goal.size) == goal.file_hash:
        return True
    if not force:
        raise TakenError(
            f"{out} is there and is another file", remedy="Replace it with --force, or name another --out"
        )
    return False


def target_path(out: Path | None, id: str, seq: int) -> Path:
    """Where a version goes: `out`, in it where it is a directory, `ID-vN.jsonl` here where there is none."""
    name = f"{id}-v{seq}.jsonl"
    if out is None:
        return Path(name)
    out = out.expanduser()
    return out / name if out.is_dir() else out


def check_part(out: Path, *, force: bool) -> None:
    """Check that what stands under the names of a `.part` and its sidecar is a buyer's, or empty.

    Raises:
        TakenError: it is another file, and `force` was not said.
    """
    part, sidecar = part_path(out), sidecar_path(out)
    remedy = "Move it, name another --out, or lose it with --force"
    if force:
        return
    before = read_sidecar(sidecar)
    if before is None:
        raise TakenError(f"{sidecar} is there and is another file", remedy=remedy)
    try:
        size = part.lstat().st_size
    except FileNotFoundError:
        return
    # looked at twice: another process may have begun, or ended, in between
    if size and not before and not read_sidecar(sidecar):
        raise TakenError(f"{part} is there, and nothing says of what it is a part", remedy=remedy)


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """What a sidecar says; {} where there is none, or an empty one; None where it is another file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    except OSError:
        return None
    try:
        raw = os.read(fd, _SIDECAR_BYTES)
        found = json.loads(raw) if raw or not stat.S_ISREG(os.fstat(fd).st_mode) else {}
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(fd)
    fields = Goal("", "", 0, b"", 0, b"").sidecar().keys()
    return found if isinstance(found, dict) and (not raw or found.keys() - {VALIDATOR} == fields) else None


def tidy(out: Path) -> None:
    """Remove what a run left that was killed just after the file had got its name."""
    part, sidecar = part_path(out), sidecar_path(out)
    if not read_sidecar(sidecar):
        return
    if os.path.lexists(part) and os.path.samestat(part.lstat(), out.lstat()):
        part.unlink(missing_ok=True)
    if not os.path.lexists(part):
        sidecar.unlink(missing_ok=True)


def check_room(out: Path, goal: Goal) -> None:
    """Check that the file fits on the disk, beside what a `.part` of it has taken already.

    Raises:
        UsageError: it does not.
    """
    try:
        disk = os.statvfs(out.parent)
        taken = part_path(out).lstat().st_blocks * 512 if part_path(out).exists() else 0
    except OSError as error:
        raise UsageError(
            f"{out.parent} cannot be used: {error.strerror}", remedy="Name another --out"
        ) from error
    if goal.size > (free := disk.f_bavail * disk.f_frsize + taken):
        raise UsageError(
            f"the file has {goal.size} bytes, and {out.parent} has room for {free}",
            remedy="Make room, or name an --out on another disk",
        )


def hash_file(path: Path, size: int) -> bytes:
    """The SHA-256 of a regular file of `size` bytes.

    Raises:
        StorageError: it cannot be read, or has another size.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return hash_descriptor(fd, size, lambda: False)
        finally:
            os.close(fd)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


def hash_descriptor(fd: int, size: int, stopped: Callable[[], bool]) -> bytes:
    """The SHA-256 of an open file of `size` bytes; StorageError where it has another size.

    Args:
        stopped: looked at now and then; what is returned is the hash only while it is false.
    """
    state, at = sha256(), 0
    buffer = memoryview(bytearray(min(_READ, size + 1)))
    while (got := os.preadv(fd, [buffer], at)) and at <= size and not stopped():
        state.update(buffer[:got])
        at += got
    if at != size:
        raise StorageError(
            f"the file has {at} bytes where {size} were written", remedy="Run the command again"
        )
    return state.digest()


def part_path(out: Path) -> Path:
    """The file that is filled in place of `out`."""
    return out.with_name(out.name + ".part")


def sidecar_path(out: Path) -> Path:
    """The file that says what that one is a part of."""
    return out.with_name(out.name + ".part.json")
