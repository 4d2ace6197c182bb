"""The buyer's journal of payments: one open payment for a version, and no step taken twice or backwards."""

import sqlite3
from dataclasses import replace

import pytest

from tensorage import sqlite
from tensorage.dataset.payments.errors import PaymentUndecided
from tensorage.dataset.payments.journal import MIGRATION, Journal, Row

ROW = Row(
    bytes(32), "root", "chats", 1, "n", "a", 2**70, "to", "payer", {"x": [1]}, b"\1" * 32, "begun", None,
    None, None, 5, 5,
)  # fmt: skip


def opened(path):
    db = sqlite3.connect(path, isolation_level=None)
    sqlite.prepare(db, path, (MIGRATION,))
    return Journal(db)


def test_what_is_recorded_is_there_after_reopening(tmp_path):
    journal = opened(tmp_path / "j")
    journal.begin(ROW)
    journal.signed(ROW.reference, {"data": "00"}, 6)
    journal.paid(ROW.reference, "header", "block 7", 7)
    again = opened(tmp_path / "j")
    row = again.open("root", "chats", 1)
    assert row == replace(
        ROW, state="paid", signed={"data": "00"}, header="header", place="block 7", updated=7
    )
    assert row.amount == 2**70 and "\\x01" not in repr(row), "the claim key's secret half is not shown"
    again.claimed(ROW.reference, 8)
    assert journal.open("root", "chats", 1) is None
    assert [found.state for found in journal.all()] == ["claimed"]


def test_a_second_payment_for_a_version_waits_for_the_first(tmp_path):
    first, second = opened(tmp_path / "j"), opened(tmp_path / "j")
    first.begin(ROW)
    with pytest.raises(PaymentUndecided, match="under way"):
        second.begin(replace(ROW, reference=b"\2" * 32))
    second.begin(replace(ROW, reference=b"\3" * 32, version=2))
    second.begin(replace(ROW, reference=b"\4" * 32, root_owner="other"))
    first.lost(ROW.reference, 6)
    second.begin(replace(ROW, reference=b"\2" * 32))


def test_no_step_is_taken_twice_or_backwards(tmp_path):
    journal = opened(tmp_path / "j")
    journal.begin(ROW)
    for early in (
        lambda: journal.paid(ROW.reference, "h", "p", 6),
        lambda: journal.claimed(ROW.reference, 6),
        lambda: journal.signed(b"\7" * 32, {}, 6),
    ):
        with pytest.raises(PaymentUndecided):
            early()
    journal.lost(ROW.reference, 6)
    with pytest.raises(PaymentUndecided):  # another process has closed it: what was signed must not be sent
        journal.signed(ROW.reference, {}, 7)
    other = replace(ROW, reference=b"\2" * 32)
    journal.begin(other)
    journal.signed(other.reference, {}, 7)
    with pytest.raises(PaymentUndecided):
        journal.signed(other.reference, {}, 7)
    journal.paid(other.reference, "h", "p", 8)
    journal.claimed(other.reference, 9)
    journal.claimed(other.reference, 9)
    with pytest.raises(PaymentUndecided):
        journal.lost(other.reference, 10)
