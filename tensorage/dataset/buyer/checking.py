"""verify: the log of a dataset of ours, of a seller's, or in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...chain.network import ChainSettings
from ...errors import UsageError
from .. import verifying, wire
from ..names import is_id
from ..options import open_store
from .api import Seller
from .book import Book
from .trust import OnChain, Tell, Trusted, judge, roots_on_chain
from .urls import Place


async def verify_at(
    book: Book,
    place: Place,
    *,
    owner: str | None,
    token: str | None,
    anchor: ChainSettings | None,
    clock: Callable[[], int],
    tell: Tell,
) -> Trusted:
    """Verify what a seller shows, and remember it.

    Raises:
        LogError, HeadError: it does not hold.
        SellerError, ChainError: somebody does not answer.
    """
    async with Seller(place, token) as seller:
        chain = None
        if anchor is not None:
            raw = await seller.anchor()
            chain = OnChain(await roots_on_chain(anchor), None if raw is None else wire.read_anchor(raw))
        document = await seller.log()
    return judge(
        book,
        document,
        now=clock(),
        tell=tell,
        id=place.id,
        owner=owner,
        place=place,
        chain=chain,
    )


def verify_file(
    book: Book, path: Path, *, owner: str | None, id: str | None, now: int, tell: Tell
) -> Trusted:
    """Verify a log in a file. A head statement in it may have expired; what is remembered still counts.

    Raises:
        UsageError: the file cannot be read.
        LogError, HeadError: the log does not hold.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(wire.MAX_LOG_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", remedy="Name a file with a version log"
        ) from error
    return judge(book, raw, now=now, tell=tell, id=id, owner=owner, fresh=False)


async def verify_own(home: Path, id: str, *, owner: str | None, anchor: ChainSettings | None) -> Trusted:
    """Verify the log of a dataset in the owner's own store.

    Raises:
        UsageError: there is none of that name.
        LogError, HeadError: it does not hold.
    """
    with open_store(home, id=id) as store:
        log, head = store.log(id), store.head(id)
        pin = owner or store.dataset(id).owner
        proof = store.anchored(id) if anchor is not None else None
    verified = verifying.verify(log, owner=pin, id=id)
    anchored = None
    if anchor is not None:
        anchored = OnChain(await roots_on_chain(anchor), proof).check(log)
    return Trusted(log, head, verified, anchored)


def is_file(what: str) -> bool:
    """Whether `verify` shall take its argument for a file: one is there, or it can be nothing else."""
    return Path(what).is_file() or not is_id(what)
