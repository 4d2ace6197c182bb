"""Shard files: the bytes of one shard and nothing else, there either whole or not at all.

A file is allocated before the first byte, written past the page cache and hashed as the bytes come, compared
with the root that the ticket names, flushed, and only then given its name. What is read, past the page cache
too, is compared with the stored nodes at height 4 (one for 16 leaves, 64 KiB) before anybody sees it.
"""

from __future__ import annotations

import errno
from pathlib import Path

from .. import merkle, seal, shard
from ..direct import Pages, read_at
from ..errors import ProofError
from .files import NewFile
from .layout import COMING
from .slots import GROUP_HEIGHT, LEAVES_PER_GROUP, split

GROUP_SIZE = LEAVES_PER_GROUP * seal.LEAF_SIZE
#: Bytes that are hashed and written at once.
STEP = 512 << 10
_STAGING = Pages(STEP, keep=16)
#: What the system says when a disk, or what one may use of it, is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: What it says of one file that is damaged, and not of a whole disk.
DAMAGE = (errno.ENOENT, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ESPIPE)


class ShardWriter:
    """Receives one shard. `finish` puts it in its place; until then, `discard` leaves no trace.

    Bytes are gathered in a staging buffer, and hashed and written whenever that is full.

    Raises:
        OSError: from any method; the disk is full already from the constructor, which allocates the file.
    """

    def __init__(self, path: Path, leaves: int) -> None:
        self.path = path
        self.size = leaves * seal.LEAF_SIZE
        self.received = 0
        self._hashes: list[bytes] = []
        self._file = NewFile(path, path.with_suffix(COMING), self.size)
        self._staging: memoryview | None = _STAGING.take()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes, as many as there are.

        Raises:
            ProofError: they are more than the shard has; it is dropped.
        """
        view = memoryview(data).cast("B")
        if self.received + len(view) > self.size:
            raise ProofError(f"more than the {self.size} bytes of the shard were sent")
        staging = self._stage()
        while view:
            at = self.received % STEP
            fits = min(len(view), STEP - at)
            staging[at : at + fits] = view[:fits]
            self.received += fits
            view = view[fits:]
            if at + fits == STEP or self.received == self.size:
                self._flush(staging[: at + fits], self.received - at - fits)

    def _stage(self) -> memoryview:
        if self._staging is None:
            raise ValueError("this shard is finished or was discarded")
        return self._staging

    def _flush(self, step: memoryview, offset: int) -> None:
        self._file.write(offset, step)
        self._hashes += merkle.leaf_hashes(step, seal.LEAF_SIZE)

    def finish(self, root: bytes) -> bytes:
        """Compare with the root, flush, and give the file its name, which its directory has yet to flush.

        Returns:
            The nodes at height 4, one after the other.

        Raises:
            ProofError: bytes are missing, or it is another shard.
        """
        if self.received != self.size:
            raise ProofError(f"{self.received} of the {self.size} bytes of the shard were sent")
        nodes = merkle.level(self._hashes, GROUP_HEIGHT)
        if (is_root := merkle.root(nodes)) != root:
            raise ProofError(f"the shard that was sent has the root {is_root.hex()}, not {root.hex()}")
        self._file.finish()
        self._unstage()
        return b"".join(nodes)

    def discard(self) -> None:
        """Drop what was written, if it was not finished."""
        self._unstage()
        self._file.discard()

    def _unstage(self) -> None:
        if self._staging is not None:
            _STAGING.give(self._staging)
            self._staging = None


class WrongBytesError(Exception):
    """A file that does not hold what its nodes say; the message says what is wrong with it."""


def read_groups(path: Path, nodes: bytes, first: int, count: int) -> tuple[bytes, list[bytes]]:
    """`count` groups of 16 leaves from group `first` on, compared with the stored nodes.

    Returns:
        The bytes, and the hash of each leaf.

    Raises:
        WrongBytesError: the file is missing, short, unreadable or has other bytes.
        OSError: the disk as a whole cannot be read.
    """
    size = count * GROUP_SIZE
    try:
        data = read_at(path, first * GROUP_SIZE, size)
    except OSError as error:
        if error.errno in DAMAGE:
            raise WrongBytesError(f"cannot be read: {error.strerror}") from error
        raise
    if len(data) != size:
        raise WrongBytesError(f"ends before byte {first * GROUP_SIZE + size}")
    hashes = merkle.leaf_hashes(data, seal.LEAF_SIZE)
    expected = split(nodes)[first : first + count]
    for number, (found, node) in enumerate(
        zip(merkle.level(hashes, GROUP_HEIGHT), expected, strict=True), start=first
    ):
        if found != node:
            leaf = number * LEAVES_PER_GROUP
            raise WrongBytesError(f"has wrong bytes in leaves {leaf} to {leaf + LEAVES_PER_GROUP - 1}")
    return data, hashes


def read_piece(path: Path, nodes: bytes, leaves: int, first: int, count: int) -> bytes:
    """The answer with an aligned run of leaves: the path to the shard's root, then the bytes.

    Raises:
        ProofError: there is no such piece.
        WrongBytesError, OSError: as `read_groups`.
    """
    shard.check_piece(leaves, first, count)
    group = first // LEAVES_PER_GROUP
    data, hashes = read_groups(path, nodes, group, max(count // LEAVES_PER_GROUP, 1))
    upper = merkle.levels(split(nodes))
    if count >= LEAVES_PER_GROUP:
        up = (count // LEAVES_PER_GROUP).bit_length() - 1
        return b"".join([*merkle.path_in(upper[up:], first // count), data])
    up = count.bit_length() - 1
    within = first - group * LEAVES_PER_GROUP
    path_below = merkle.path_in(merkle.levels(hashes)[up:], within // count)
    piece = data[within * seal.LEAF_SIZE : (within + count) * seal.LEAF_SIZE]
    return b"".join([*path_below, *merkle.path_in(upper, group), piece])
