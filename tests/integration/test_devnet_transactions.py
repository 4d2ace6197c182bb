"""What may enter a block of the devnet, what it costs, and what it leaves when it fails."""

import sqlite3

import pytest
from bittensor import ChainError, calls
from bittensor.error_map import ErrorCode
from devnet_hand import RAO, SUBTENSOR, Hand, address, key

from tensorage.chain.devnet.block import read_extrinsic, validate
from tensorage.chain.devnet.calls import compose
from tensorage.chain.devnet.errors import PoolError
from tensorage.chain.devnet.extrinsics import Era, extrinsic_hash
from tensorage.chain.devnet.pallets.registry import check
from tensorage.chain.devnet.shield import ShieldKey

BOB = address("//Bob")


@pytest.fixture
def chain(tmp_path):
    return Hand(tmp_path / "devnet.sqlite")


def pay(tao):
    return calls.Balances.transfer_keep_alive(BOB, int(tao * RAO))


def issuance(chain):
    """(what the chain says there is, what is on accounts, what is staked with TAO)."""
    accounts = sum(account["data"]["free"] for _, account in chain.view.items("System", "Account"))
    return chain.view.get("Balances", "TotalIssuance"), accounts, chain["TotalStake",]


def test_a_transfer_moves_exactly_its_amount_and_burns_exactly_its_fee(chain):
    alice = address("//Alice")
    before = chain.free(alice)
    name = chain.send("//Alice", pay(7))
    chain.block()
    fee = chain.store.receipt(name).fee
    assert 0 < fee < RAO // 1000
    assert (chain.free(BOB), chain.free(alice)) == (7 * RAO, before - 7 * RAO - fee)
    total, accounts, staked = issuance(chain)
    assert total == accounts + staked


def test_tao_is_neither_made_nor_lost_by_registering_and_staking(chain):
    chain.register("//V", stake=50)
    total, accounts, staked = issuance(chain)
    assert staked == 50 * RAO
    assert total == accounts + staked
    assert chain.do("//V", SUBTENSOR.remove_stake(address("//V//hot"), 1, 20 * RAO)) is None
    total, accounts, staked = issuance(chain)
    assert staked == 30 * RAO
    assert total == accounts + staked


def test_a_failed_call_pays_its_fee_uses_its_nonce_and_changes_nothing_else(chain):
    chain.fund("//Bob", 1)
    assert (
        chain.do("//Bob", calls.Balances.transfer_keep_alive(address("//Eve"), 5 * RAO)) == "FundsUnavailable"
    )
    assert chain.nonce("//Bob") == 1
    assert chain.free(address("//Eve")) == 0
    assert RAO - RAO // 1000 < chain.free(BOB) < RAO
    events = {event["event"]["event_id"] for event in chain.store.events(chain.store.head())}
    assert "ExtrinsicFailed" in events
    assert "Transfer" not in events


@pytest.mark.parametrize(
    ("refusal", "options"),
    [
        ("BadProof", {"by": "//Eve"}),
        ("Stale", {"nonce": 0}),
        ("AncientBirthBlock", {"era": Era(8, 5_000)}),
    ],
)
def test_the_pool_refuses_what_can_never_enter_a_block(chain, refusal, options):
    chain.do("//Alice", pay(1))
    with pytest.raises(PoolError) as error:
        chain.send("//Alice", pay(1), **options)
    assert error.value.name == refusal
    # And a producer that finds it in the pool all the same refuses it too.
    data = chain.sign("//Alice", pay(1), **options)
    chain.store.add_to_pool("0xforced", "//Alice", 99, data)
    chain.block()
    assert chain.store.refusal("0xforced") == refusal
    assert chain.store.pool() == []


def test_an_account_without_money_cannot_pay_a_fee_and_a_strange_hotkey_is_told_so(chain):
    with pytest.raises(PoolError) as error:
        chain.send("//Poor", pay(1))
    assert error.value.to_sdk().code is ErrorCode.INSUFFICIENT_BALANCE
    with pytest.raises(PoolError) as error:
        chain.weights("//Nobody", {0: 1})
    assert error.value.to_sdk().code is ErrorCode.NOT_REGISTERED


def test_any_changed_byte_of_a_signed_extrinsic_is_noticed(chain):
    data = chain.sign("//Alice", pay(1))
    for position in range(len(data)):
        forged = bytearray(data)
        forged[position] ^= 1
        with pytest.raises(PoolError) as error:
            validate(chain.store, chain.facts, chain.view, read_extrinsic(bytes(forged)), len(forged))
        assert error.value.name in ("Malformed", "BadProof", "Stale", "AncientBirthBlock", "Payment")


def test_an_extrinsic_is_bound_to_its_chain(chain, tmp_path):
    other = Hand(tmp_path / "other.sqlite", seed="another")
    data = other.sign("//Alice", pay(1))
    with pytest.raises(PoolError, match="bad signature"):
        validate(chain.store, chain.facts, chain.view, read_extrinsic(data), len(data))


def test_a_nonce_ahead_waits_for_the_ones_before_it(chain):
    later = chain.send("//Alice", pay(2), nonce=1)
    chain.block(3)
    assert chain.store.receipt(later) is None
    first = chain.send("//Alice", pay(1), nonce=0)
    chain.block(2)
    assert chain.store.receipt(first).error is None
    assert chain.store.receipt(later).block - chain.store.receipt(first).block in (0, 1)
    assert chain.free(BOB) == 3 * RAO


def test_two_extrinsics_with_one_nonce_do_not_both_wait(chain):
    chain.send("//Alice", pay(1), nonce=0)
    data = chain.sign("//Alice", pay(2), nonce=0)
    assert not chain.store.add_to_pool(extrinsic_hash(data), address("//Alice"), 0, data)


def test_an_immortal_extrinsic_waits_as_long_as_it_takes(chain):
    data = chain.sign("//Alice", pay(1), era=None)
    chain.block(500)
    chain.store.add_to_pool(extrinsic_hash(data), address("//Alice"), 0, data)
    chain.block()
    assert chain.free(BOB) == RAO


def test_a_batch_is_whole_or_nothing_only_where_it_says_so(chain):
    good, bad = (check(compose(*pay(amount))) for amount in (1, 10**8))
    assert chain.do("//Alice", calls.Utility.batch_all(calls=[good, bad, good])) == "FundsUnavailable"
    assert chain.free(BOB) == 0
    assert chain.do("//Alice", calls.Utility.batch(calls=[good, bad, good])) == "FundsUnavailable"
    assert chain.free(BOB) == 1 * RAO
    assert chain.do("//Alice", calls.Utility.force_batch(calls=[good, bad, good])) == "FundsUnavailable"
    assert chain.free(BOB) == 3 * RAO
    assert chain.do("//Alice", calls.Utility.batch_all(calls=[good, good])) is None
    assert chain.free(BOB) == 5 * RAO


def test_only_the_sudo_key_is_root_and_a_call_that_fails_under_it_is_a_failure(chain):
    chain.fund("//Bob", 1)
    threshold = check(compose(*calls.AdminUtils.sudo_set_stake_threshold(5)))
    assert chain.do("//Bob", calls.Sudo.sudo(call=threshold)) == "RequireSudo"
    assert chain.do("//Alice", calls.AdminUtils.sudo_set_stake_threshold(5)) == "BadOrigin"
    assert chain.do("//Alice", calls.Sudo.sudo(call=threshold)) is None
    assert chain["StakeThreshold",] == 5
    unknown = check(compose(*calls.AdminUtils.sudo_set_kappa(99, 1)))
    assert chain.do("//Alice", calls.Sudo.sudo(call=unknown)) == "SubnetDoesNotExist"


def shielded(chain, uri, inner, nonce):
    """A carrier of `uri` with an extrinsic inside, as the SDK makes it."""
    import bittensor_core

    sealed = bittensor_core.encrypt_mlkem768(
        bytes.fromhex(chain.view.get("MevShield", "NextKey")[2:]), inner, include_key_hash=True
    )
    return chain.send(uri, calls.MevShield.submit_encrypted(ciphertext=sealed), nonce=nonce)


def test_a_shielded_call_runs_right_after_its_carrier(chain):
    inner = chain.sign("//Alice", pay(3), nonce=1)
    carrier = shielded(chain, "//Alice", inner, 0)
    chain.block()
    outer, opened = chain.store.receipt(carrier), chain.store.receipt(extrinsic_hash(inner))
    assert (opened.block, opened.position) == (outer.block, outer.position + 1)
    assert chain.free(BOB) == 3 * RAO
    assert chain.nonce("//Alice") == 2


@pytest.mark.parametrize("how", ["forged", "garbage", "wrong nonce", "cut"])
def test_a_carrier_with_a_bad_inside_costs_its_sender_only_the_carrier(chain, how):
    inner = {
        "forged": chain.sign("//Alice", pay(3), nonce=1, by="//Eve"),
        "wrong nonce": chain.sign("//Alice", pay(3), nonce=7),
        "garbage": b"not an extrinsic",
        "cut": b"",
    }[how]
    carrier = shielded(chain, "//Alice", inner, 0)
    chain.block(3)
    assert chain.store.receipt(carrier).error is None
    assert chain.free(BOB) == 0
    assert chain.nonce("//Alice") == 1
    events = [e["event"]["event_id"] for e in chain.store.events(chain.store.receipt(carrier).block)]
    assert "ExtrinsicDecodeFailed" in events


def test_a_shield_opens_only_what_was_sealed_for_it():
    import bittensor_core

    mine, other = ShieldKey(bytes(64)), ShieldKey(bytes([1]) * 64)
    sealed = bittensor_core.encrypt_mlkem768(mine.public, b"inside", include_key_hash=True)
    assert mine.open(sealed) == b"inside"
    with pytest.raises(ValueError, match="does not open"):
        other.open(sealed)
    for size in (0, 17, 500, 1106, len(sealed) - 1):
        with pytest.raises(ValueError):
            mine.open(sealed[:size])


@pytest.mark.parametrize(
    "call",
    [
        calls.Call("SubtensorModule", "swap_hotkey", {}),
        calls.Call("Nowhere", "nothing", {}),
        calls.Call("Balances", "transfer_keep_alive", {"dest": BOB}),
        calls.Call("Balances", "transfer_keep_alive", {"dest": BOB, "value": -1}),
        calls.Call("Balances", "transfer_keep_alive", {"dest": BOB, "value": True}),
        calls.Call("Balances", "transfer_keep_alive", {"dest": "Bob", "value": 1}),
        calls.Call("SubtensorModule", "burned_register", {"netuid": 70_000, "hotkey": BOB}),
        calls.Call("Commitments", "set_commitment", {"netuid": 1, "info": {"fields": [{"Raw5": b"four"}]}}),
    ],
)
def test_a_call_that_the_runtime_would_not_decode_is_not_composed(call):
    with pytest.raises(ChainError):
        check(compose(*call))


def test_a_block_that_cannot_be_written_leaves_no_trace(chain, monkeypatch):
    name = chain.send("//Alice", pay(1))
    head = chain.store.head()

    def fail(*_):
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(chain.store, "write_block", fail)
        with pytest.raises(sqlite3.OperationalError):
            chain.block()
    assert chain.store.head() == head
    assert [pending.hash for pending in chain.store.pool()] == [name]
    chain.block()
    assert chain.store.receipt(name).error is None


def test_the_hashes_of_blocks_and_keys_follow_from_the_seed_and_differ_without(tmp_path):
    one, two, other = (
        Hand(tmp_path / f"{n}.sqlite", seed=seed) for n, seed in enumerate(("same", "same", None))
    )
    genesis = [chain.store.block(0).hash for chain in (one, two, other)]
    assert genesis[0] == genesis[1] != genesis[2]
    assert len(bytes.fromhex(genesis[2][2:])) == 32
    keys = [chain.view.get("MevShield", "NextKey") for chain in (one, two, other)]
    assert keys[0] == keys[1] != keys[2]
    assert key("//Alice").ss58_address == one.view.get("Sudo", "Key")
