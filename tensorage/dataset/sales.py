"""What is asked for a dataset, and what was paid for it.

1. A payment is journaled before it is settled, and is for one version of one dataset.
2. The token of a payment is HMAC-SHA256(token secret, payment id), made and recorded in one transaction.
   Whoever asks again with the same payment, because an answer was lost, gets the same token, though only its
   hash is kept.
3. The token secret is a file beside the database, made once. A copy of the database holds no
   token.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import RequestError, StorageError, UsageError
from .files import write_atomically
from .home import Home
from .members import TOKEN_PREFIX, insert_member, token_hash

SECRET_NAME = "token.secret"  # noqa: S105 - of a file
SECRET_SIZE = 32
MAX_PAYMENT_ID = 128  # bytes
PAID_LABEL = "paid"

Unit = Literal["flat", "mb"]
PaymentState = Literal["begun", "minted"]

_PAYMENT = (
    "payment_id, id, version, network, asset, amount, pay_to, payer, reference, state, transaction_id, "
    "begun, minted"
)


@dataclass(frozen=True, slots=True)
class OfferTerms:
    """What an owner asks for a dataset.

    Attributes:
        network, asset: in CAIP-2 form and as the network calls it.
        price: decimal text in whole units of the asset; a `unit` of "mb" is for each 2^20 bytes begun.
        pay_to: the payee's address.
        facilitator: URL of who settles, None where nobody is needed.
    """

    network: str
    asset: str
    price: str
    unit: Unit
    pay_to: str
    facilitator: str | None = None


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment and what became of it.

    Attributes:
        payment_id: what the network knows it by, 1 to 128 bytes.
        amount: smallest units of the asset.
        reference: what it carries on chain, and so which key may claim its token.
        state: "begun" until the token is made, then "minted".
        begun, minted: seconds since 1970.
    """

    payment_id: bytes
    id: str
    version: int
    network: str
    asset: str
    amount: int
    pay_to: str
    payer: str | None
    reference: bytes | None
    state: PaymentState
    transaction: str | None
    begun: int
    minted: int | None


class SaleRows(Home):
    """Offers and payments."""

    def set_offer(self, id: str, terms: OfferTerms | None) -> None:
        """Record what is asked for a dataset from now on; None: it is not for sale.

        Raises:
            UsageError: no such dataset.
        """

        def work(db: sqlite3.Connection) -> None:
            if db.execute("SELECT 1 FROM datasets WHERE id = ?", (id,)).fetchone() is None:
                raise UsageError(f'dataset "{id}" not found')
            db.execute("DELETE FROM offers WHERE id = ?", (id,))
            if terms is not None:
                db.execute(
                    "INSERT INTO offers (id, network, asset, price, unit, pay_to, facilitator) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        id,
                        terms.network,
                        terms.asset,
                        terms.price,
                        terms.unit,
                        terms.pay_to,
                        terms.facilitator,
                    ),
                )

        self._write(work)

    def offer(self, id: str) -> OfferTerms | None:
        """What is asked for a dataset; None when it is not for sale."""
        query = "SELECT network, asset, price, unit, pay_to, facilitator FROM offers WHERE id = ?"
        row = self._read(lambda db: db.execute(query, (id,)).fetchone())
        return OfferTerms(*row) if row else None

    def payment(self, payment_id: bytes) -> Payment | None:
        """What is known of a payment."""
        return self._read(lambda db: _payment(db, payment_id))

    def payments(self, id: str) -> list[Payment]:
        """All payments for a dataset, in the order in which they were begun."""
        query = f"SELECT {_PAYMENT} FROM payments WHERE id = ? ORDER BY begun, payment_id"  # noqa: S608
        return self._read(lambda db: [_row(row) for row in db.execute(query, (id,))])

    def begin_payment(
        self,
        payment_id: bytes,
        id: str,
        version: int,
        *,
        network: str,
        asset: str,
        amount: int,
        pay_to: str,
        payer: str | None = None,
        reference: bytes | None = None,
    ) -> Payment:
        """Journal a payment before it is settled; what is known of it, if it was begun before.

        Raises:
            RequestError: "conflict"; it was made for something else.
            UsageError: no such dataset.
        """
        _check_payment_id(payment_id)
        now = self._clock()

        def work(db: sqlite3.Connection) -> Payment:
            if known := _payment(db, payment_id):
                return _same(known, id, version)
            if db.execute("SELECT 1 FROM datasets WHERE id = ?", (id,)).fetchone() is None:
                raise UsageError(f'dataset "{id}" not found')
            db.execute(
                "INSERT INTO payments (payment_id, id, version, network, asset, amount, pay_to, payer, "
                "reference, state, begun) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'begun', ?)",
                (payment_id, id, version, network, asset, str(amount), pay_to, payer, reference, now),
            )
            begun = _payment(db, payment_id)
            assert begun is not None
            return begun

        return self._write(work)

    def drop_payment(self, payment_id: bytes) -> None:
        """Forget a payment that was begun and is known not to have been settled; one that was stays."""
        self._write(
            lambda db: db.execute(
                "DELETE FROM payments WHERE payment_id = ? AND state = 'begun'", (payment_id,)
            )
        )

    def mint_paid(
        self,
        payment_id: bytes,
        id: str,
        version: int,
        payer: str | None,
        network: str,
        amount: int,
        transaction: str | None,
    ) -> str:
        """The token of a settled payment: made and recorded the first time, the same one each time after.

        It opens versions 1 to `version`, for good. `begin_payment` must have been called.

        Raises:
            RequestError: "conflict"; the payment is for something else.
            StorageError: the token secret is not the one that the token was made with.
        """
        now = self._clock()

        def work(db: sqlite3.Connection) -> str:
            known = _payment(db, payment_id)
            if known is None:
                raise StorageError(f"payment {payment_id.hex()} was never begun")
            _same(known, id, version)
            if known.network != network:
                raise RequestError("conflict", f"this payment was begun on {known.network}, not {network}")
            raw = self._paid_token(payment_id)
            if known.state == "minted":
                _check_token(db, payment_id, raw, self.home)
                return raw
            number = insert_member(db, raw, id, PAID_LABEL, version, now=now, expires=None, paid=amount)
            db.execute(
                "UPDATE payments SET state = 'minted', payer = coalesce(?, payer), amount = ?, "
                "transaction_id = ?, member = ?, minted = ? WHERE payment_id = ?",
                (payer, str(amount), transaction, number, now, payment_id),
            )
            return raw

        return self._write(work)

    def paid_token(self, payment_id: bytes) -> str | None:
        """The token that was made for a payment; None when none was.

        Raises:
            StorageError: as `mint_paid`.
        """

        def work(db: sqlite3.Connection) -> str | None:
            known = _payment(db, payment_id)
            if known is None or known.state != "minted":
                return None
            raw = self._paid_token(payment_id)
            _check_token(db, payment_id, raw, self.home)
            return raw

        return self._write(work)  # the lock of the database stands before the secret too

    def _paid_token(self, payment_id: bytes) -> str:
        return TOKEN_PREFIX + hmac.new(self._secret(), payment_id, hashlib.sha256).hexdigest()

    def _secret(self) -> bytes:
        """The token secret, made where it is missing. Whoever calls has the write lock of the database."""
        path = self.home / SECRET_NAME
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            secret = self._rng(SECRET_SIZE)
            write_atomically(self._disk, path, secret)
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        if len(secret) != SECRET_SIZE:
            raise StorageError(
                f"{path} has {len(secret)} bytes, not {SECRET_SIZE}", remedy="Restore it from a copy"
            )
        return secret


def _check_payment_id(payment_id: bytes) -> None:
    if not 1 <= len(payment_id) <= MAX_PAYMENT_ID:
        raise ValueError(f"a payment id has 1 to {MAX_PAYMENT_ID} bytes, not {len(payment_id)}")


def _row(row: tuple[Any, ...]) -> Payment:
    values = list(row)
    values[5] = int(values[5])
    return Payment(*values)


def _payment(db: sqlite3.Connection, payment_id: bytes) -> Payment | None:
    row = db.execute(f"SELECT {_PAYMENT} FROM payments WHERE payment_id = ?", (payment_id,)).fetchone()  # noqa: S608
    return _row(row) if row else None


def _same(payment: Payment, id: str, version: int) -> Payment:
    if (payment.id, payment.version) != (id, version):
        raise RequestError(
            "conflict",
            f"this payment was made for {payment.id} version {payment.version}, not {id} {version}",
        )
    return payment


def _check_token(db: sqlite3.Connection, payment_id: bytes, raw: str, home: Path) -> None:
    row = db.execute(
        "SELECT hash FROM members JOIN payments ON members.number = payments.member WHERE payment_id = ?",
        (payment_id,),
    ).fetchone()
    if row is None or bytes(row[0]) != token_hash(raw):
        raise StorageError(
            f"{home / SECRET_NAME} is not the secret that this payment's token was made with",
            remedy="Restore the file from a copy",
        )
