"""The devnet's store: what a block left can be read for ever after, and a file that is none is refused."""

import sqlite3
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage.chain.devnet.shield import hchacha20
from tensorage.chain.devnet.store import VERSION, Block, Receipt, Store, decode_key, encode_key
from tensorage.errors import UsageError

PARTS = st.one_of(st.integers(0, 2**64), st.text("5abcXYZ019", min_size=1, max_size=8))


def block(number):
    return Block(number, f"0x{number:064x}", f"0x{number - 1:064x}", 1000 * number, "0x00")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "devnet.sqlite", create=True)
    yield store
    store.close()


def write(store, number, **values):
    with store.transaction():
        changes = {("P", "I", key): value for key, value in values["changes"].items()}
        store.write_block(block(number), changes, values.get("receipts", []), [])


@given(st.lists(PARTS, min_size=1, max_size=3))
def test_a_key_reads_back(parts):
    assert decode_key(encode_key(parts)) == tuple(parts)


@given(
    st.lists(
        st.dictionaries(st.tuples(PARTS, PARTS), st.one_of(st.none(), st.integers()), max_size=6),
        min_size=1,
        max_size=6,
    ),
    PARTS,
)
def test_every_block_keeps_reading_what_it_left(tmp_path_factory, history, prefix):
    store = Store(tmp_path_factory.mktemp("store") / "devnet.sqlite", create=True)
    state, states = {}, []
    for number, changes in enumerate(history):
        write(store, number, changes=changes)
        state = {key: value for key, value in {**state, **changes}.items() if value is not None}
        states.append(state)
    for number, expected in enumerate(states):
        for key in {key for changes in history for key in changes}:
            assert store.get("P", "I", key, number) == (key in expected, expected.get(key))
        assert dict(store.items("P", "I", (), number)) == expected
        under = {key: value for key, value in expected.items() if key[0] == prefix}
        assert dict(store.items("P", "I", (prefix,), number)) == under
    store.forget(len(states) - 1)
    assert dict(store.items("P", "I", (), len(states) - 1)) == states[-1]
    store.close()


def test_a_prefix_is_a_whole_part(store):
    write(store, 0, changes={(1, "a"): 1, (10, "a"): 2, (1, "b"): 3, (2, "a"): 4, ("1", "a"): 5})
    assert store.items("P", "I", (1,), 0) == [((1, "a"), 1), ((1, "b"), 3)]
    assert store.items("P", "Other", (), 0) == []


def test_integer_keys_come_in_their_order(store):
    write(store, 0, changes={(1, uid): uid for uid in (10, 9, 100, 2)})
    assert [key[1] for key, _ in store.items("P", "I", (1,), 0)] == [2, 9, 10, 100]


def test_a_transaction_that_fails_leaves_nothing(store):
    write(store, 0, changes={(1,): 1})
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.write_block(block(1), {("P", "I", (1,)): 2}, [], [])
        raise ZeroDivisionError
    assert store.head() == 0
    assert store.get("P", "I", (1,), 5) == (True, 1)


def test_a_receipt_is_found_by_its_hash_and_only_in_its_block(store):
    receipt = Receipt("0xaa", 0, 1, {"call": {}}, {"name": "Bad", "docs": "bad"}, 7)
    write(store, 0, changes={}, receipts=[receipt])
    assert store.receipt("0xaa") == store.receipt("0xaa", 0) == receipt
    assert store.receipt("0xaa", 1) is None
    assert store.receipts(0) == [receipt]


def test_the_pool_keeps_one_extrinsic_a_signer_and_nonce_in_order(store):
    assert store.add_to_pool("0x1", "alice", 0, b"a")
    assert store.add_to_pool("0x2", "bob", 0, b"b")
    assert not store.add_to_pool("0x3", "alice", 0, b"c")
    assert not store.add_to_pool("0x1", "alice", 1, b"a")
    assert [pending.data for pending in store.pool()] == [b"a", b"b"]
    assert store.withdraw("0x1")
    assert not store.withdraw("0x1")
    assert store.pooled_nonces("alice") == set()


def test_another_connection_sees_a_block_and_that_something_changed(store):
    reader = Store(store.path)
    before = reader.version()
    write(store, 0, changes={(1,): 1})
    assert reader.version() != before
    assert reader.head() == 0
    reader.close()


def test_a_reader_does_not_wait_for_a_writer(store):
    write(store, 0, changes={(1,): 1})
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with store.transaction():
            store.write_block(block(1), {("P", "I", (1,)): 2}, [], [])
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    reader = Store(store.path)
    assert reader.head() == 0
    assert reader.get("P", "I", (1,), 9) == (True, 1)
    leave.set()
    thread.join()
    assert reader.head() == 1
    reader.close()


def test_what_is_no_devnet_is_refused_with_the_remedy(tmp_path):
    missing, text, other, newer = (tmp_path / name for name in ("missing", "text", "other", "newer"))
    with pytest.raises(UsageError, match=f"tensorage devnet up --path {missing}"):
        Store(missing)
    text.write_text("no database, but long enough to be read as the header of one" * 10)
    with pytest.raises(UsageError, match="is no usable devnet file"):
        Store(text)
    sqlite3.connect(other).execute("CREATE TABLE mine (x)").connection.close()
    with pytest.raises(UsageError, match="holds no devnet"):
        Store(other)
    Store(newer, create=True).close()
    with sqlite3.connect(newer) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(UsageError, match="Upgrade tensorage"):
        Store(newer)


def test_hchacha20_is_the_one_of_the_draft():
    # draft-irtf-cfrg-xchacha-03, section 2.2.1
    key = bytes(range(32))
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    assert hchacha20(key, nonce).hex() == "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
