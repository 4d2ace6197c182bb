"""What lets a buyer in: a token that it was given, one that it kept, or one that it pays for now.

The order of paying: the log was verified before; an unfinished payment goes on; the owner's signed offer is
held against the limits; money moves (`payments.paying`); the seller gives a token for it; the token is on
disk; only then the payment is closed. Broken off anywhere, the next run goes on there, and nothing is paid
twice.

A payment that bought a token before is shown again, at whatever address; the seller owes the same token for
it. If it is refused, nothing is signed: only who says so (`--pay-again`) pays anew.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import TensorageError, UsageError
from ..entry import Entry
from ..payments.errors import PaymentUndecided
from ..payments.journal import Row
from ..payments.models import read_challenge
from ..payments.paying import Paid, Shown, Wallet, Way, pay, refused, resume
from ..payments.policy import Limits, choose
from ..payments.pricing import shown
from .api import Answer, Seller, SellerError, document, retry_after
from .book import Book, Token
from .urls import Place

TOKEN_VARIABLE = "TENSORAGE_DATASET_TOKEN"  # noqa: S105 - the name of a variable
_TOKEN = re.compile(r"[!-~]{16,512}", re.ASCII)
_MOST = 4096
#: Times that a payment is shown to a seller who cannot look at it yet, and seconds between them at most.
_SHOWN = 20
_MOST_WAIT = 30.0


@dataclass(frozen=True)
class Entitlement:
    """A token, where it is from, and what was paid for it, if anything was."""

    token: str = field(repr=False)
    source: str
    payment: dict[str, Any] | None = None


def check_token(text: str, where: str) -> str:
    """A token, without the white space around it.

    Raises:
        UsageError: it is none. What it is stands in no message.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise UsageError(f"{where} holds no token", remedy="It is one line of 16 to 512 printable letters")
    return token


def given_token(flag: str | None, file: Path | None, tell: Callable[[str], None]) -> str | None:
    """The token that the user gives: by a file, the environment, or (with a warning) on the command line.

    Raises:
        UsageError: two were given, the file cannot be read, or what it holds is no token.
    """
    if flag is not None and file is not None:
        raise UsageError("--member-token and --member-token-file exclude each other", remedy="Give one")
    if flag is not None:
        tell(
            "WARNING: a token on the command line can be seen by every user of this machine; use "
            f"--member-token-file or {TOKEN_VARIABLE}"
        )
        return check_token(flag, "--member-token")
    if file is not None:
        try:
            with file.expanduser().open("rb") as opened:
                raw = opened.read(_MOST)
        except OSError as error:
            raise UsageError(
                f"{file} cannot be read: {error.strerror}", remedy="Name another file"
            ) from error
        return check_token(raw.decode("utf-8", "replace"), str(file))
    if value := os.environ.get(TOKEN_VARIABLE):
        return check_token(value, TOKEN_VARIABLE)
    return None


def kept_token(book: Book, place: Place, seq: int) -> Entitlement | None:
    """A token that this address gave before and that may open version `seq`."""
    for token in book.tokens(place.base, place.id):
        if token.version is None or token.version >= seq:
            return Entitlement(token.token, f"kept ({token.source})")
    return None


class Buying:
    """Pays for one version of a dataset at one seller's.

    Args:
        entry: the version, from a verified log whose newest key is `owner` and whose first is `root_owner`.
        clock: unix seconds.
    """

    def __init__(
        self,
        book: Book,
        seller: Seller,
        *,
        entry: Entry,
        owner: str,
        root_owner: str,
        clock: Callable[[], int],
        tell: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._book = book
        self._seller = seller
        self._entry = entry
        self._owner = owner
        self._root_owner = root_owner
        self._clock = clock
        self._tell = tell

    async def again(self) -> Entitlement | None:
        """The token for what was paid before: shows that payment again, and signs nothing.

        None where nothing was paid yet, or where a payment is under way, which `token` goes on with.

        Raises:
            SellerError: no seller's answer to it holds a token. It names the payment.
        """
        journal, entry = self._book.journal, self._entry
        under_way = journal.open(self._root_owner, entry.id, entry.seq)
        if under_way is not None and under_way.state != "begun":
            return None
        refusal: SellerError | None = None
        for row in reversed(paid_before(self._book, self._root_owner, entry.id, entry.seq)):
            paid = Paid(
                row.reference,
                row.header or "",
                row.network,
                row.asset,
                row.amount,
                row.pay_to,
                row.payer,
                row.place or "",
            )
            self._tell(f"Paid before: {payment_text(row)}. Showing that payment again; nothing is paid")
            try:
                answer = await self._show(paid, row.version)
                if answer.status == 200 or answer.status >= 500:
                    return self._keep(answer, paid)
            except SellerError as error:
                error.remedy += f". It is {payment_text(row)}; only --pay-again pays a second time"
                raise
            said = answer.message or answer.kind or "no reason given"
            refusal = refusal or unheard(
                row, f"{self._seller.place.base} refuses it now (HTTP {answer.status}: {said})", answer.status
            )
        if refusal is not None:
            raise refusal
        return None

    async def token(self, wallet: Wallet, limits: Limits, *, anew: bool = False) -> Entitlement:
        """Pay, unless it was paid, and have the token; it is on disk when this returns.

        Args:
            anew: pay even if a token was bought for this version before. Call `again` first otherwise.

        Raises:
            PolicyRefusal: the price is not within the limits; nothing was signed.
            PaymentUndecided, PaymentLost: as `payments.paying`; or another command has bought it meanwhile.
            SellerError: the seller does not answer as it should. What was paid is in the journal.
        """
        journal, entry = self._book.journal, self._entry
        paid = await resume(
            wallet,
            journal,
            root_owner=self._root_owner,
            id=entry.id,
            version=entry.seq,
            now=self._clock(),
        )
        if paid is None:
            paid = await self._pay(wallet if anew else _OneTime(wallet, self._check_unpaid), limits)
        else:
            money = shown(paid.amount, paid.network)
            self._tell(f"Going on with a payment that was begun: {money} to {paid.pay_to}")
        answer = await self._show(paid, entry.seq)
        if answer.status == 402:
            why = answer.message or answer.kind or "no reason given"
            await refused(wallet, journal, paid, self._clock(), why)
            raise SellerError(
                f"the seller refuses the payment ({why}); it was not made",
                status=402,
                remedy="Run the command again to pay anew",
            )
        return self._keep(answer, paid)

    async def _pay(self, wallet: Wallet, limits: Limits) -> Paid:
        answer = await self._seller.join(self._entry.seq, None)
        if answer.status != 402:
            said = answer.message or answer.kind or "no reason given"
            raise SellerError(
                f"{self._seller.place.base} sells no version {self._entry.seq} of {self._entry.id} "
                f"(HTTP {answer.status}: {said})",
                status=answer.status,
                kind=answer.kind,
                remedy="Ask the owner for access: tensorage dataset join",
            )
        chosen = choose(
            read_challenge(answer.body), limits, entry=self._entry, owner=self._owner, now=self._clock()
        )
        way = chosen.requirement
        money = shown(chosen.signed.offer.amount, way.network)
        self._tell(f"Paying {money} to {way.payTo} on {way.network}, from {wallet.payer}")
        return await pay(chosen, wallet, self._book.journal, root_owner=self._root_owner, now=self._clock())

    def _check_unpaid(self) -> None:
        """Check that no command has bought the version meanwhile. This one's payment is the only open one."""
        rows = paid_before(self._book, self._root_owner, self._entry.id, self._entry.seq)
        if rows:
            raise PaymentUndecided(
                f"another command has paid meanwhile ({payment_text(rows[-1])}); nothing was signed",
                remedy="Run this one again: it shows that payment",
            )

    async def _show(self, paid: Paid, version: int) -> Answer:
        """Show a payment until the seller has looked at it: it may have to wait for its chain."""
        for number in range(_SHOWN):
            try:
                answer = await self._seller.join(version, paid.header)
            except SellerError as error:
                raise self._owed(error.message) from error
            if answer.status != 503 or number == _SHOWN - 1:
                break
            await self._sleep(min(max(retry_after(answer), 1.0), _MOST_WAIT))
        return answer

    def _owed(self, why: str) -> SellerError:
        return SellerError(
            f"it is paid, and the seller has not given the token yet: {why}",
            remedy="Run the same command again: it shows the same payment and pays nothing more",
        )

    def _keep(self, answer: Answer, paid: Paid) -> Entitlement:
        if answer.status != 200:
            raise self._owed(f"HTTP {answer.status}: {answer.message or answer.kind or 'no reason given'}")
        try:
            found = document(answer.body, "the seller's answer")
            token = check_token(str(found.get("token", "")), "the seller's answer")
            version = found.get("version")
        except TensorageError as error:
            raise self._owed(error.message) from error
        if type(version) is not int or version < self._entry.seq:
            raise self._owed(f"its token is for version {version!r:.20}, not {self._entry.seq}")
        now = self._clock()
        place = self._seller.place
        self._book.keep_token(place.base, place.id, Token(token, version, "paid", now))
        self._book.journal.claimed(paid.reference, now)
        self._tell(
            f"Paid join: {shown(paid.amount, paid.network)} to {paid.pay_to} on {paid.network} "
            f"→ minted v{version} member token"
        )
        return Entitlement(token, "paid", payment_json(paid))


class _OneTime:
    """A wallet that looks, just before it signs, whether it still may.

    Args:
        check: raises where it may not.
    """

    def __init__(self, wallet: Wallet, check: Callable[[], None]) -> None:
        self._wallet = wallet
        self._check = check

    @property
    def network(self) -> str:
        """As the wallet's."""
        return self._wallet.network

    @property
    def payer(self) -> str:
        """As the wallet's."""
        return self._wallet.payer

    async def sign(self, way: Way, now: int) -> dict[str, Any]:
        """Sign, if the check lets it."""
        self._check()
        return await self._wallet.sign(way, now)

    async def send(self, way: Way, signed: dict[str, Any]) -> Shown:
        """As the wallet does."""
        return await self._wallet.send(way, signed)

    async def fate(self, way: Way, signed: dict[str, Any], now: int) -> None:
        """As the wallet does."""
        await self._wallet.fate(way, signed, now)


def paid_before(book: Book, root_owner: str, id: str, seq: int) -> list[Row]:
    """The payments that bought a token for version `seq`, or a later one, which opens it; oldest first."""
    return [
        row
        for row in book.journal.all()
        if (row.root_owner, row.id, row.state) == (root_owner, id, "claimed") and row.version >= seq
    ]


def payment_text(row: Paid | Row) -> str:
    """A payment, for people: how much, to whom, where."""
    where = f" ({row.place})" if row.place else ""
    return (
        f"{shown(row.amount, row.network)} to {row.pay_to} on {row.network}{where}, "
        f"payment {row.reference.hex()[:16]}"
    )


def unheard(row: Row, why: str, status: int, kind: str = "") -> SellerError:
    """What is said where a payment bought a token before, and the seller does not let it in."""
    return SellerError(
        f"v{row.version} of {row.id} was paid for ({payment_text(row)}), and {why}; nothing more is paid",
        status=status,
        kind=kind,
        remedy="Ask the owner, who can see that payment. Only --pay-again pays a second time",
    )


def payment_json(paid: Paid | Row) -> dict[str, Any]:
    """What a receipt says of a payment."""
    return {
        "network": paid.network,
        "asset": paid.asset,
        "amount": str(paid.amount),
        "payTo": paid.pay_to,
        "payer": paid.payer,
        "place": paid.place,
        "reference": paid.reference.hex(),
    }


def earlier_payment(book: Book, root_owner: str, id: str, seq: int) -> dict[str, Any] | None:
    """What was paid for a version before, for its receipt."""
    for row in reversed(book.journal.all()):
        same = (row.root_owner, row.id, row.version) == (root_owner, id, seq)
        if same and row.state in ("paid", "claimed"):
            return payment_json(row)
    return None


def settle(book: Book, root_owner: str, id: str, seq: int, now: int) -> None:
    """Close a payment whose token was saved, and that was broken off before it was closed."""
    row = book.journal.open(root_owner, id, seq)
    if row is not None and row.state == "paid":
        book.journal.claimed(row.reference, now)
