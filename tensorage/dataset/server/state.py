"""What is being published on this machine: HOME/serve/ID.json, for `approve`.

The file is there, mode 0600, while a server runs, and holds the owner token. A server that was killed leaves
it behind: what counts is the lock beside it, which ends with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

from ...errors import UsageError
from ..files import Disk, make_directories, write_atomically
from ..names import is_id

SERVE_NAME = "serve"
_MAX_BYTES = 256 * 1024
_TRIES, _TRY_SECONDS = 20, 0.05


@dataclass(frozen=True, slots=True)
class State:
    """One server.

    Attributes:
        local_addr: its URL on this machine. `public_url`: the one for others, None when there is none.
        owner_token: opens everything.
        certificate: PEM of its TLS certificate, None for plain HTTP.
    """

    id: str
    local_addr: str
    public_url: str | None
    owner_token: str = field(repr=False)
    certificate: str | None = field(repr=False)


class Published:
    """Says that a dataset is being published, until it is left. A context manager.

    Raises:
        UsageError: it is being published already.
        StorageError: the file cannot be written.
    """

    def __init__(self, home: Path, id: str, disk: Disk) -> None:
        self._disk = disk
        self._path = home / SERVE_NAME / f"{id}.json"
        make_directories(disk, self._path.parent)
        self._lock = _lock(self._path, os.O_CREAT)
        for tried in range(_TRIES):  # `approve` may be looking whether it is free
            if _is_free(self._lock, fcntl.LOCK_EX):
                return
            if tried + 1 < _TRIES:
                time.sleep(_TRY_SECONDS)
        os.close(self._lock)
        raise UsageError(
            f'dataset "{id}" is being published already',
            remedy="Stop that server first; new versions are served without a restart",
        )

    def write(self, state: State) -> State:
        """Make the file say so."""
        write_atomically(self._disk, self._path, json.dumps(asdict(state)).encode() + b"\n")
        return state

    def __enter__(self) -> Published:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disk.unlink(self._path)
        os.close(self._lock)


def running(home: Path) -> list[State]:
    """The servers that run on this machine, by id."""
    found = []
    for path in sorted((home / SERVE_NAME).glob("*.json")):
        state = _read(path)
        if state is not None and _is_locked(path):
            found.append(state)
    return found


def _read(path: Path) -> State | None:
    """What a file says; None when it is gone, or says nothing of the kind."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MAX_BYTES))
        state = State(**value)
    except (OSError, ValueError, TypeError):
        return None
    return state if state.id == path.stem and is_id(state.id) else None


def _lock(path: Path, flags: int = 0) -> int:
    lock = path.with_suffix(".lock")
    try:
        return os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    except OSError as error:
        raise UsageError(f"{lock} cannot be opened: {error.strerror}", remedy="Check who owns it") from error


def _is_free(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    if not path.with_suffix(".lock").exists():
        return False
    lock = _lock(path)
    try:
        return not _is_free(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def owner_token(random: bytes) -> str:
    """A new owner token of 24 random bytes."""
    return f"tensorage-owner-{random.hex()}"
