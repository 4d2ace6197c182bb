"""The adversaries of the demo. Not for use: these are miners that lie, so that the lie can be seen to fail.

    overwritten   half the bytes of its disk are overwritten, and it serves them without looking
    zeros         it committed to sectors of zeros, and answers every challenge about them perfectly;
                  only a seal audit can tell

Each is the real miner, run by the real command with the real flags; what differs is what is on the disk, and
for the first that the reader's check is taken out.

Example: python -m tensorage.demo.cheats zeros <flags of tensorage miner>
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import config, merkle, seal
from ..allocator.reader import Reader
from ..allocator.store import GROUP_HEIGHT, GROUPS_PER_CHUNK, LEAVES_PER_GROUP, Store, split
from ..errors import UsageError
from ..miner import command
from ..miner.service import MinerService

_GROUP = LEAVES_PER_GROUP * seal.LEAF_SIZE


class CarelessReader(Reader):
    """A reader that serves whatever is on the disk, with the paths that what was there had."""

    def leaf(self, index: int, root: bytes, leaf_number: int) -> tuple[bytes, list[bytes]]:
        """A leaf and a path, neither of which was compared with anything."""
        sector = self._store.sector(index)
        if sector is None:
            raise UsageError(f"sector {index} is not kept")
        chunk, within = divmod(leaf_number, seal.LEAVES_PER_CHUNK)
        group, place = divmod(within, LEAVES_PER_GROUP)
        with sector.path.open("rb") as file:
            file.seek((leaf_number - place) * seal.LEAF_SIZE)
            data = file.read(_GROUP)
        bottom = merkle.levels(merkle.leaf_hashes(data, seal.LEAF_SIZE))
        middle = merkle.levels(split(self._store.nodes(index)[chunk]))
        top = merkle.levels(split(self._store.chunk_roots(index) or b""))
        leaf = data[place * seal.LEAF_SIZE : (place + 1) * seal.LEAF_SIZE]
        return leaf, merkle.path_in(bottom, place) + merkle.path_in(middle, group) + merkle.path_in(
            top, chunk
        )


class Overwritten(MinerService):
    """The miner whose disk lost half its bytes, and who does not mind."""

    def prepare(self, store: Store) -> None:
        """Overwrite every other group of leaves."""
        for sector in store.sectors("sealed"):
            with sector.path.open("r+b") as file:
                for start in range(0, store.identity.sectors.size, 2 * _GROUP):
                    file.seek(start)
                    file.write(bytes(_GROUP))

    def make_reader(self, store: Store) -> Reader:
        return CarelessReader(store)


class Zeros(MinerService):
    """The miner who committed to zeros."""

    def prepare(self, store: Store) -> None:
        """Put zeros in the place of every sector that is planned, and the tree over zeros in its row."""
        leaf = merkle.leaf_hash(bytes(seal.LEAF_SIZE))
        node = merkle.levels([leaf] * LEAVES_PER_GROUP)[GROUP_HEIGHT][0]
        profile = store.identity.sectors
        nodes = node * GROUPS_PER_CHUNK * profile.chunks
        for sector in store.sectors("planned"):
            sector.path.parent.mkdir(parents=True, exist_ok=True)
            with sector.path.open("wb") as file:
                file.truncate(profile.size)
            store.record_sealed(sector.index, nodes)


CHEATS: dict[str, type[MinerService]] = {"overwritten": Overwritten, "zeros": Zeros}


def main(arguments: Sequence[str]) -> int:
    """Run a cheat; returns its exit code."""
    if not arguments or arguments[0] not in CHEATS:
        sys.stderr.write(f"error: name a cheat: {', '.join(CHEATS)}\n")
        return 2
    app = command.build(CHEATS[arguments[0]])
    return config.run(app, arguments[1:], program=f"cheat {arguments[0]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
