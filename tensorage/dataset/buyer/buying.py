"""buy: a version of a dataset, from its log to the file on disk.

The order: verify the log and what it says of its newest version; look whether the file fits where it shall
go; have a token (`entitling`); have the chunk list and the manifest, and check them against what is signed;
fetch from all sources at once; flush, name, note the receipt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...chain.network import ChainSettings
from ...client.meter import Meter
from ...errors import ProofError, TensorageError, UsageError
from ...transport.refusals import one_line
from .. import wire
from ..chunks import check_leaves, split_leaves
from ..files import Disk
from ..log import Log
from ..manifest import File, manifest_hash
from . import receipts
from .api import Seller, SellerError
from .book import Book
from .download import Download, Outcome
from .entitling import Buying, Entitlement, earlier_payment, kept_token, paid_before, settle, unheard
from .part import Part
from .sources import HttpSource, Source
from .subnet import NAME as SUBNET
from .subnet import SubnetSource, open_link
from .target import Goal, check_part, check_room, check_target, target_path, tidy
from .trust import OnChain, Tell, Trusted, judge, roots_on_chain
from .urls import Place, mirror, parse
from .wallets import Money
from .whole import WholeDownload


@dataclass(frozen=True)
class Request:
    """What the user wants.

    Attributes:
        version: 0 for the newest.
        token: what the user gave; None for what is kept, or paid for.
        out: where to; None for `ID-vN.jsonl` here. A directory means that name in it.
        join: pay for a token, where none is kept and nothing was paid before.
        pay_again: with `join`, pay even if it was paid before.
        mirrors: other places that have the file.
        anchor: the chain to ask for the owner's anchor; None not to.
        moved_from: the address at which this seller was before: its tokens are good here too.
        network: miners of the storage subnet at private addresses are dialled only if this is local.
    """

    place: Place
    version: int
    token: str | None
    out: Path | None
    owner: str | None
    join: bool
    money: Money
    mirrors: tuple[str, ...]
    anchor: ChainSettings | None
    moved_from: str | None = None
    force: bool = False
    pay_again: bool = False
    network: ChainSettings = field(default_factory=lambda: ChainSettings("finney", None, 0))


class Buy:
    """One purchase.

    Args:
        clock: unix seconds.
        tell: hears, a line each, what the user must know.
        meter: makes the progress bar of a download: (verb, bytes).
    """

    def __init__(
        self,
        book: Book,
        request: Request,
        *,
        clock: Callable[[], int],
        tell: Tell,
        meter: Callable[[str, int], Meter],
    ) -> None:
        self._book = book
        self._want = request
        self._clock = clock
        self._tell = tell
        self._meter = meter

    async def run(self) -> dict[str, Any]:
        """Do it; returns the receipt, with `resumed`, `sources` and `alreadyThere` of this run added.

        Raises:
            LogError, HeadError, ProofError: what the seller shows does not hold.
            PolicyRefusal, PaymentUndecided, PaymentLost: about the payment.
            SellerError, DownloadError: the seller and the mirrors do not give it.
            UsageError: what the user can put right.
        """
        place = self._want.place
        place.check_private()
        if self._want.moved_from is not None:
            self._move(self._want.moved_from)
        kept = None if self._want.token else next(iter(self._book.tokens(place.base, place.id)), None)
        async with Seller(place, self._want.token or (kept.token if kept else None)) as seller:
            trusted = await self._verify(seller)
            goal = _goal(trusted, place.id, self._want.version)
            out = target_path(self._want.out, place.id, goal.seq)
            if check_target(out, goal, force=self._want.force):
                tidy(out)
                payment = earlier_payment(self._book, goal.root_owner, goal.id, goal.seq)
                return self._done(trusted, goal, out, None, payment, None)
            check_part(out, force=self._want.force)
            receipts.check_beside(out, force=self._want.force)
            check_room(out, goal)
            return await self._fetch(seller, trusted, goal, out)

    def _move(self, old: str) -> None:
        """Take over what is known of the seller's old address; the user says that it is the same."""
        place = self._want.place
        base = parse(old).url
        tokens = self._book.tokens(base, place.id)
        if not tokens:
            raise UsageError(f"no token is kept for {base}", remedy="Name the address that gave one")
        for token in tokens:
            self._book.keep_token(place.base, place.id, token)
        owner = self._book.owner_at(base, place.id)
        if owner is not None and self._book.owner_at(place.base, place.id) is None:
            self._book.trust(place.base, place.id, owner, self._clock())

    async def _verify(self, seller: Seller) -> Trusted:
        chain = None
        if self._want.anchor is not None:
            raw = await seller.anchor()
            chain = OnChain(
                await roots_on_chain(self._want.anchor), None if raw is None else wire.read_anchor(raw)
            )
        document = await seller.log()
        place = self._want.place
        return judge(
            self._book,
            document,
            now=self._clock(),
            tell=self._tell,
            id=place.id,
            owner=self._want.owner,
            place=place,
            chain=chain,
        )

    async def _fetch(self, seller: Seller, trusted: Trusted, goal: Goal, out: Path) -> dict[str, Any]:
        entitlement, leaves = await self._enter(seller, trusted, goal)
        payment = entitlement.payment or earlier_payment(self._book, goal.root_owner, goal.id, goal.seq)
        files = await self._manifest(seller, trusted, goal) if leaves is not None else None
        owner = self._owner(goal, entitlement)
        if leaves is None:
            self._tell(
                "WARNING: this log has format 1: it is not proven that its newest version is the newest, nor "
                "that it is a log of this dataset, and nothing can be checked before the whole file is here"
            )
        others = [] if leaves is None else await self._others(seller, goal)
        sources: list[Source] = [owner, *others]
        self._tell(f"Fetching {goal.id} v{goal.seq} from {', '.join(source.name for source in sources)}")
        with (
            Part(out, goal, Disk(), force=self._want.force) as part,
            self._meter(f"fetching {goal.id} v{goal.seq}", goal.size) as bar,
        ):
            outcome = await _in_thread(
                WholeDownload(part, owner, bar.add)
                if leaves is None
                else Download(part, leaves, sources, bar.add)
            )
            part.finish(force=self._want.force)
        for report in outcome.sources:
            if report.fault:
                self._tell(f"WARNING: source {report.name} {report.fault}")
        for source in others:
            if isinstance(source, SubnetSource):
                self._tell_wrong(source)
        return self._done(trusted, goal, out, files, payment, outcome)

    async def _enter(
        self, seller: Seller, trusted: Trusted, goal: Goal
    ) -> tuple[Entitlement, Sequence[bytes] | None]:
        """A token that the seller takes, and the chunk list that it gave for it (none in format 1)."""
        place = self._want.place
        if self._want.token is not None:
            entitlement: Entitlement | None = Entitlement(self._want.token, "given")
        else:
            entitlement = kept_token(self._book, place, goal.seq)
        if entitlement is not None:
            seller.token = entitlement.token
            try:
                leaves = await self._leaves(seller, trusted, goal)
            except SellerError as error:
                if error.status not in (401, 403):
                    raise
                if not self._want.join or self._want.token is not None:
                    raise self._paid_in_vain(goal, error, joined=False) from error
                self._tell(f"The token that was kept is not good for v{goal.seq}: {error.kind}")
            else:
                settle(self._book, goal.root_owner, goal.id, goal.seq, self._clock())
                return entitlement, leaves
        if not self._want.join:
            raise self._no_token(place)
        entitlement = await self._pay(seller, trusted, goal)
        seller.token = entitlement.token
        try:
            return entitlement, await self._leaves(seller, trusted, goal)
        except SellerError as error:
            if error.status not in (401, 403):
                raise
            raise self._paid_in_vain(goal, error, joined=True) from error

    def _paid_in_vain(self, goal: Goal, error: SellerError, *, joined: bool) -> SellerError:
        """The same error; where it was paid for, it says so and does not advise to pay."""
        rows = paid_before(self._book, goal.root_owner, goal.id, goal.seq)
        if not rows:
            return error
        found = unheard(rows[-1], error.message, error.status, error.kind)
        if not joined:
            found.remedy = (
                "Run it with --join and no other token: that shows the payment again and pays nothing"
            )
        return found

    def _no_token(self, place: Place) -> UsageError:
        elsewhere = [base for base in self._book.bases(place.id) if base != place.base]
        if elsewhere:
            return UsageError(
                f"there is no token for {place.base}; one is kept for {elsewhere[0]}, and goes nowhere else",
                remedy=f"If this is the same seller, say so: --moved-from {elsewhere[0]}",
            )
        return UsageError(
            f"there is no token for {place.base}",
            remedy="Give one with --member-token-file, ask for one with 'dataset join', or pay with --join",
        )

    async def _pay(self, seller: Seller, trusted: Trusted, goal: Goal) -> Entitlement:
        log = trusted.log
        if not isinstance(log, Log):
            raise UsageError(
                "a log of format 1 carries no signed price, so it cannot be paid for from here",
                remedy="Ask the owner for a token",
            )
        buying = Buying(
            self._book,
            seller,
            entry=log.at(goal.seq).entry,
            owner=log.owner,
            root_owner=log.root_owner,
            clock=self._clock,
            tell=self._tell,
        )
        if not self._want.pay_again and (held := await buying.again()) is not None:
            return held
        async with self._want.money.open() as (wallet, limits):
            self._tell(f"Buyer wallet: {wallet.payer}")
            return await buying.token(wallet, limits, anew=self._want.pay_again)

    async def _leaves(self, seller: Seller, trusted: Trusted, goal: Goal) -> Sequence[bytes] | None:
        if not isinstance(trusted.log, Log):
            return None
        leaves = split_leaves(await seller.chunks(goal.seq, goal.size))
        check_leaves(leaves, goal.size, goal.chunk_root)
        return leaves

    async def _manifest(self, seller: Seller, trusted: Trusted, goal: Goal) -> tuple[File, ...] | None:
        raw = await seller.manifest(goal.seq)
        if raw is None:
            self._tell("WARNING: the seller shows no manifest; the signed hash of it is not checked")
            return None
        files = wire.read_manifest(raw)
        assert isinstance(trusted.log, Log), "only logs of format 2 have a manifest that can be checked"
        signed = trusted.log.at(goal.seq).entry.manifest_hash
        if (found := manifest_hash(files)) != signed:
            raise ProofError(f"the manifest has the hash {found.hex()}, the owner signed {signed.hex()}")
        if not any(file.sha256 == goal.file_hash and file.size == goal.size for file in files):
            raise ProofError(
                "the manifest that the owner signed does not list the file that the owner signed"
            )
        return files

    def _owner(self, goal: Goal, entitlement: Entitlement) -> HttpSource:
        place = self._want.place
        path = parse(f"{place.base}/dataset/{place.id}/download")
        return HttpSource(path, entitlement.token, query=f"version={goal.seq}", name=place.base)

    async def _others(self, seller: Seller, goal: Goal) -> list[HttpSource | SubnetSource]:
        """The mirrors that the user and the seller name, and the storage subnet."""
        found: list[HttpSource | SubnetSource] = []
        known: set[str] = set()
        for text in self._want.mirrors:
            address = mirror(text, goal.id, goal.seq, goal.file_hash)
            if address.url not in known:
                known.add(address.url)
                found.append(HttpSource(address))
        places = await seller.places(goal.seq, goal.size)
        for text in places.mirrors:
            try:
                address = mirror(text, goal.id, goal.seq, goal.file_hash)
            except UsageError:
                self._tell("WARNING: the seller names a mirror that is no URL")
                continue
            if address.url not in known:
                known.add(address.url)
                found.append(HttpSource(address, public_only=not self._want.place.server.here))
        if places.subnet is not None:
            found += await self._subnet(places.subnet, goal)
        return found

    async def _subnet(self, link: str, goal: Goal) -> list[SubnetSource]:
        """The source behind a link; none where it is no good."""
        try:
            return [await asyncio.to_thread(open_link, link, goal, self._want.network)]
        except TensorageError as error:
            self._tell(f"WARNING: source {SUBNET} is not used: {one_line(error.message)}")
            return []

    def _tell_wrong(self, source: SubnetSource) -> None:
        for stripe, number, hotkey, reason in source.wrong:
            self._tell(
                f"WARNING: shard {number} of stripe {stripe}, at miner {hotkey}, was wrong and made up for: "
                f"{one_line(reason)}"
            )

    def _done(
        self,
        trusted: Trusted,
        goal: Goal,
        out: Path,
        files: tuple[File, ...] | None,
        payment: dict[str, Any] | None,
        outcome: Outcome | None,
    ) -> dict[str, Any]:
        now = self._clock()
        path = out.absolute()
        place = self._want.place
        known = self._book.receipts(id=goal.id, file_hash=goal.file_hash) if outcome is None else []
        if not known:
            known = [
                receipts.receipt(
                    trusted,
                    goal.seq,
                    id=goal.id,
                    path=path,
                    url=f"{place.base}/dataset/{place.id}",
                    time=now,
                    files=files,
                    payment=payment,
                )
            ]
            self._book.keep_receipt(known[0], path, now)
            receipts.write(path, known[0], force=self._want.force)
        reports = outcome.sources if outcome else []
        return known[0] | {
            "alreadyThere": outcome is None,
            "resumed": outcome.kept if outcome else 0,
            "sources": [asdict(report) for report in reports],
        }


def _goal(trusted: Trusted, id: str, version: int) -> Goal:
    log, root = trusted.log, trusted.verified.root_owner
    newest = trusted.verified.seq
    seq = version or newest
    if not 1 <= seq <= newest:
        raise UsageError(
            f"version {version} is not present in the signed log; its newest is {newest}",
            remedy="Leave --version out for the newest",
        )
    if isinstance(log, Log):
        entry = log.at(seq).entry
        return Goal(root, id, seq, entry.file_hash, entry.size, entry.chunk_root)
    record = log.records[seq - 1]
    return Goal(root, id, seq, bytes.fromhex(record.file_hash), record.size, b"")


async def _in_thread(download: Download | WholeDownload) -> Outcome:
    """Run it in a thread; where this is cancelled, it has ended too."""
    task = asyncio.ensure_future(asyncio.to_thread(download.run))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        download.stop()
        await asyncio.gather(task, return_exceptions=True)
        raise
