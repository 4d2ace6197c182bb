"""The calls of the devnet's runtime: what each allows, in which order it refuses, and what it writes."""

import ast
from hashlib import blake2b
from pathlib import Path

import pytest
from bittensor import ChainError, calls
from bittensor.error_map import ErrorCode
from bittensor.intents.hyperparameters import OWNER_HYPERPARAMETERS
from devnet_hand import ADMIN, RAO, SUBTENSOR, Hand, address, key

from tensorage.chain.devnet import pallets
from tensorage.chain.devnet.errors import DispatchError
from tensorage.chain.devnet.items import ITEMS
from tensorage.chain.devnet.pallets.registry import CALLS
from tensorage.chain.devnet.pallets.weights import commitment_hash

U16 = 65535
ITEMS_READ = {name for pallet, name in ITEMS if pallet != "Balances"}


@pytest.fixture
def chain(tmp_path):
    return Hand(tmp_path / "devnet.sqlite")


def row(chain, uri):
    return dict(chain["Weights", 1, chain.uid(uri)])


# Registration -----------------------------------------------------------------


def test_registering_costs_the_price_raises_it_and_time_lowers_it_again(chain):
    chain.fund("//M", 100)
    price, before = chain["Burn", 1], chain.free(address("//M"))
    assert chain.do("//M", SUBTENSOR.burned_register(1, address("//M//hot"))) is None
    paid = before - chain.free(address("//M"))
    assert 0.9 * price < paid < 1.001 * price
    raised = chain["Burn", 1]
    assert raised == pytest.approx(1.26 * price, rel=0.01)
    chain.block(chain["BurnHalfLife", 1])
    assert chain["Burn", 1] == pytest.approx(raised / 2, rel=0.01)
    chain.sudo(ADMIN.sudo_set_burn_half_life(1, 1))
    chain.block(60)
    assert chain["Burn", 1] == chain["MinBurn", 1]


def test_a_registration_is_refused_by_name_and_takes_nothing(chain):
    chain.register("//M")
    chain.fund("//Poor", 0.5)
    chain.fund("//Thief", 100)
    before = chain.free(address("//Thief"))
    hot = address("//M//hot")
    assert chain.do("//M", SUBTENSOR.burned_register(1, hot)) == "HotKeyAlreadyRegisteredInSubNet"
    assert chain.do("//Poor", SUBTENSOR.burned_register(1, address("//P"))) == "NotEnoughBalanceToStake"
    assert chain.do("//Thief", SUBTENSOR.burned_register(9, address("//P"))) == "SubnetNotExists"
    assert chain.do("//Thief", SUBTENSOR.burned_register(0, hot)) == "RegistrationNotPermittedOnRootSubnet"
    owner = address("//Alice//owner")
    chain.sudo(ADMIN.sudo_set_network_registration_allowed(1, False))
    assert chain.do("//Thief", SUBTENSOR.burned_register(1, owner)) == "SubNetRegistrationDisabled"
    assert before - chain.free(address("//Thief")) < RAO // 100
    assert chain["SubnetworkN", 1] == 2


def test_a_hotkey_belongs_to_the_coldkey_that_registered_it_first(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite")
    chain.register("//M")
    chain.fund("//Alice2", 500)
    assert chain.do("//Alice2", SUBTENSOR.register_network(address("//M//hot"))) == "NonAssociatedColdKey"
    assert chain.do("//Alice2", SUBTENSOR.register_network(address("//Alice2//hot"))) is None
    assert chain.do("//Alice2", SUBTENSOR.burned_register(2, address("//M//hot"))) == "NonAssociatedColdKey"


def test_a_full_subnet_gives_up_its_poorest_neuron_and_spares_the_immune_and_the_owner(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite", max_uids=4, immunity_period=1000)
    chain.register("//V", stake=100)
    first, second = chain.register("//M1", "//M2")
    chain.epoch()
    chain.weights("//V", {first: 1})
    chain.epoch()
    chain.epoch()
    assert chain["Emission", 1][first] > chain["Emission", 1][second]
    call = calls.Commitments.set_commitment(1, {"fields": [{"Raw2": b"hi"}]})
    assert chain.do("//M2//hot", call) is None
    (taken,) = chain.register("//M3")  # all are immune: the poorest of them
    assert taken == second
    assert chain.uid("//M2") is None
    assert chain.view.get("Commitments", "CommitmentOf", 1, address("//M2//hot")) is None
    chain.sudo(ADMIN.sudo_set_immunity_period(1, 5))
    chain.block(5)
    (again,) = chain.register("//M4")  # //M3 was not paid yet
    assert again == second
    chain.sudo(ADMIN.sudo_set_immunity_period(1, 1000))
    chain.sudo(ADMIN.sudo_set_owner_cut_enabled(1, False))
    assert chain["Keys", 1, 0] == address("//Alice//owner")
    for uri in ("//N1", "//N2", "//N3", "//N4", "//N5"):
        chain.register(uri)
    assert chain["Keys", 1, 0] == address("//Alice//owner")
    assert chain["SubnetworkN", 1] == 4


def test_a_new_subnet_costs_more_each_time_and_emits_only_once_started(chain):
    chain.fund("//O", 2000)
    before = chain.free(address("//O"))
    assert chain.do("//O", SUBTENSOR.register_network(address("//O//hot"))) is None
    assert before - chain.free(address("//O")) == pytest.approx(100 * RAO, abs=RAO // 100)
    assert chain["SubnetOwner", 2] == address("//O")
    assert chain["Keys", 2, 0] == address("//O//hot")
    assert not chain["SubtokenEnabled", 2]
    assert chain.do("//O", SUBTENSOR.add_stake(address("//O//hot"), 2, RAO)) == "SubtokenDisabled"
    chain.block(12)
    assert chain["Emission", 2] == [0]
    chain.fund("//X", 5)
    assert chain.do("//X", SUBTENSOR.start_call(2)) == "NotSubnetOwner"
    chain.sudo(ADMIN.sudo_set_start_call_delay(10_000))
    assert chain.do("//O", SUBTENSOR.start_call(2)) == "NeedWaitingMoreBlocksToStarCall"
    chain.sudo(ADMIN.sudo_set_start_call_delay(0))
    assert chain.do("//O", SUBTENSOR.start_call(2)) is None
    assert chain.do("//O", SUBTENSOR.start_call(2)) == "FirstEmissionBlockNumberAlreadySet"
    assert chain.do("//O", SUBTENSOR.add_stake(address("//O//hot"), 2, RAO)) is None
    before = chain.free(address("//O"))
    assert chain.do("//O", SUBTENSOR.register_network(address("//O//hot"))) is None
    assert before - chain.free(address("//O")) > 190 * RAO
    assert chain.do("//X", SUBTENSOR.register_network(address("//X//hot"))) == "CannotAffordLockCost"


# Stake ------------------------------------------------------------------------


def test_stake_is_refused_by_name(chain):
    chain.register("//V")
    hot = address("//V//hot")
    assert chain.do("//V", SUBTENSOR.add_stake(hot, 1, 10**6)) == "AmountTooLow"
    assert chain.do("//V", SUBTENSOR.add_stake(hot, 1, 10**6 * RAO)) == "NotEnoughBalanceToStake"
    assert chain.do("//V", SUBTENSOR.add_stake(address("//Z"), 1, RAO)) == "HotKeyAccountNotExists"
    assert chain.do("//V", SUBTENSOR.add_stake(hot, 7, RAO)) == "SubnetNotExists"
    assert chain.do("//V", SUBTENSOR.add_stake_limit(hot, 1, RAO, RAO - 1, False)) == "SlippageTooHigh"
    assert chain.do("//V", SUBTENSOR.remove_stake(hot, 1, RAO)) == "NotEnoughStakeToWithdraw"
    assert chain.do("//V", SUBTENSOR.add_stake_limit(hot, 1, RAO, RAO, False)) is None
    assert chain.do("//V", SUBTENSOR.unstake_all(hot)) is None
    assert chain["TotalHotkeyAlpha", hot, 1] == 0


# Weights ----------------------------------------------------------------------


def test_weights_are_refused_in_the_order_of_the_real_checks(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite", weights_rate_limit=4, stake_threshold=10)
    (uid,) = chain.register("//V", stake=5)
    assert chain.weights("//V", {uid: 1}) == "NotEnoughStakeToSetWeights"
    assert chain.do("//V", SUBTENSOR.add_stake(address("//V//hot"), 1, 10 * RAO)) is None
    chain.sudo(ADMIN.sudo_set_weights_version_key(1, 3))
    assert chain.weights("//V", {0: 1}, version=2) == "IncorrectWeightVersionKey"
    chain.block(4)
    if not chain["ValidatorPermit", 1][uid]:
        assert chain.weights("//V", {0: 1}, version=3) == "NeuronNoValidatorPermit"
    chain.epoch()
    assert chain["ValidatorPermit", 1][uid]
    chain.block(4)
    assert chain.weights("//V", {0: 1, uid: 2}, version=3) is None
    assert chain.weights("//V", {0: 1}, version=3) == "SettingWeightsTooFast"
    chain.block(4)
    hot = "//V//hot"
    assert chain.do(hot, SUBTENSOR.set_mechanism_weights(1, 0, [0], [1, 2], 3)) == "WeightVecNotEqualSize"
    assert (
        chain.do(hot, SUBTENSOR.set_mechanism_weights(1, 0, [0, 1, 2], [1] * 3, 3))
        == "UidsLengthExceedUidsInSubNet"
    )
    assert chain.do(hot, SUBTENSOR.set_mechanism_weights(1, 0, [0, 0], [1, 1], 3)) == "DuplicateUids"
    assert (
        chain.do(hot, SUBTENSOR.set_mechanism_weights(1, 0, [0, 9], [1, 1], 3)) == "UidVecContainInvalidOne"
    )
    assert chain.do(hot, SUBTENSOR.set_mechanism_weights(1, 1, [0], [1], 3)) == "MechanismDoesNotExist"
    chain.sudo(ADMIN.sudo_set_min_allowed_weights(1, 2))
    assert chain.weights("//V", {0: 1}, version=3) == "WeightVecLengthIsLow"
    chain.sudo(ADMIN.sudo_set_commit_reveal_weights_enabled(1, True))
    assert chain.weights("//V", {0: 1, uid: 1}, version=3) == "CommitRevealEnabled"


def test_weights_are_stored_scaled_to_their_largest(chain):
    (uid,) = chain.register("//V", stake=10)
    chain.epoch()
    assert chain.weights("//V", {0: 1, uid: 3}) is None
    assert row(chain, "//V") == {0: U16 // 3, uid: U16}
    assert chain["LastUpdate", 1][uid] == chain.store.head()


def test_a_validator_keeps_only_what_the_number_of_permits_leaves_it(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite", max_validators=2)
    low, high, middle = (
        chain.register(uri, stake=tao)[0] for uri, tao in (("//L", 5), ("//H", 90), ("//I", 40))
    )
    chain.epoch()
    permits = chain["ValidatorPermit", 1]
    assert [permits[uid] for uid in (low, high, middle)] == [False, True, True]
    assert chain.weights("//L", {0: 1}) == "NeuronNoValidatorPermit"
    assert chain.weights("//L", {low: 1}) is None  # a weight on oneself needs no permit


# Commit and reveal ------------------------------------------------------------


def scale_hash(hotkey, netuid, uids, values, salt, version):
    """The pallet's hash, from the SCALE rules and by no code of the devnet's."""

    def vector(numbers):
        assert len(numbers) < 64
        return bytes([len(numbers) * 4]) + b"".join(number.to_bytes(2, "little") for number in numbers)

    encoded = key(hotkey).public_key + netuid.to_bytes(2, "little")
    encoded += vector(uids) + vector(values) + vector(salt) + version.to_bytes(8, "little")
    return f"0x{blake2b(encoded, digest_size=32).hexdigest()}"


def test_a_commitment_is_the_hash_of_the_scale_encoding():
    arguments = ([0, 1, 300], [U16, 1, 0], [7, 8, 9], 12)
    assert commitment_hash(address("//V//hot"), 1, *arguments) == scale_hash("//V//hot", 1, *arguments)
    long = list(range(200))  # a length of two bytes
    encoded = key("//V").public_key + b"\1\0" + b"\x21\3" + b"".join(n.to_bytes(2, "little") for n in long)
    encoded += b"\x21\3" + b"\0\0" * 200 + b"\0" + bytes(8)
    digest = blake2b(encoded, digest_size=32).hexdigest()
    assert commitment_hash(address("//V"), 1, long, [0] * 200, [], 0) == f"0x{digest}"


@pytest.fixture
def committing(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite", commit_reveal=True)
    chain.register("//V", stake=50)
    chain.register("//M")
    chain.epoch()
    return chain


SALT = [1, 2, 3]


def commit(chain, values=(1, 2), salt=SALT):
    digest = scale_hash("//V//hot", 1, [0, 2], list(values), salt, 0)
    return chain.do("//V//hot", SUBTENSOR.commit_weights(1, digest))


def reveal(chain, values=(1, 2), salt=SALT):
    return chain.do("//V//hot", SUBTENSOR.reveal_weights(1, [0, 2], list(values), salt, 0))


def test_a_commit_is_revealed_in_exactly_its_epoch(committing):
    chain = committing
    assert reveal(chain) == "NoWeightsCommitFound"
    assert commit(chain) is None
    assert chain["LastUpdate", 1][chain.uid("//V")] == chain.store.head()
    assert reveal(chain) == "RevealTooEarly"
    chain.epoch()
    assert reveal(chain, values=(2, 1)) == "InvalidRevealCommitHashNotMatch"
    assert reveal(chain, salt=[1, 2, 4]) == "InvalidRevealCommitHashNotMatch"
    assert reveal(chain) is None
    assert row(chain, "//V") == {0: 32767, 2: U16}
    assert reveal(chain) == "NoWeightsCommitFound"
    assert chain["WeightCommits", 1, address("//V//hot")] is None


def test_a_commit_that_was_not_revealed_in_time_is_expired(committing):
    chain = committing
    assert commit(chain) is None
    chain.epoch()
    chain.epoch()
    assert reveal(chain) == "ExpiredWeightCommit"
    assert chain["Weights", 1, chain.uid("//V")] == []
    chain.sudo(ADMIN.sudo_set_commit_reveal_weights_interval(1, 3))
    assert commit(chain, values=(3, 4)) is None
    for _ in range(3):
        assert reveal(chain, values=(3, 4)) == "RevealTooEarly"
        chain.epoch()
    assert reveal(chain, values=(3, 4)) is None


def test_ten_commits_may_wait_and_a_reveal_drops_the_ones_before_it(committing):
    chain = committing
    chain.sudo(ADMIN.sudo_set_tempo(1, 40))
    for number in range(10):
        assert commit(chain, values=(1, number + 1)) is None
    assert commit(chain, values=(1, 11)) == "TooManyUnrevealedCommits"
    chain.epoch()
    assert reveal(chain, values=(1, 8)) is None
    assert len(chain["WeightCommits", 1, address("//V//hot")]) == 2
    assert reveal(chain, values=(1, 3)) == "InvalidRevealCommitHashNotMatch"
    assert reveal(chain, values=(1, 9)) is None


def test_commits_belong_to_a_subnet_that_wants_them(chain):
    chain.register("//V", stake=50)
    assert commit(chain) == "CommitRevealDisabled"
    call = SUBTENSOR.commit_timelocked_mechanism_weights(1, 0, b"sealed", 99, 4)
    assert chain.do("//V//hot", call) == "CommitRevealDisabled"


def test_a_timelocked_commit_is_kept_as_pending_and_sets_no_weights(committing):
    chain = committing
    sealed = SUBTENSOR.commit_timelocked_mechanism_weights
    assert chain.do("//V//hot", sealed(1, 0, b"sealed", 99, 3)) == "IncorrectCommitRevealVersion"
    assert chain.do("//V//hot", sealed(1, 0, bytes(5001), 99, 4)) == "CommitPayloadTooLarge"
    epoch = chain["SubnetEpochIndex", 1]
    assert chain.do("//V//hot", sealed(1, 0, b"sealed", 99, 4)) is None
    block = chain.store.head()
    chain.epoch()
    chain.epoch()
    ((where, kept),) = chain.view.items("SubtensorModule", "TimelockedWeightCommits", 1)
    assert where == (1, epoch)
    assert kept == [[address("//V//hot"), block, f"0x{b'sealed'.hex()}", 99]]
    assert chain["Weights", 1, chain.uid("//V")] == []


def test_a_weight_committed_before_a_neuron_registered_does_not_reach_it(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite", commit_reveal=True, max_uids=3, immunity_period=0)
    chain.register("//V", stake=50)
    (uid,) = chain.register("//M1")
    chain.epoch()
    digest = scale_hash("//V//hot", 1, [0, uid], [1, 9], SALT, 0)
    assert chain.do("//V//hot", SUBTENSOR.commit_weights(1, digest)) is None
    assert chain.register("//M2") == [uid]
    chain.epoch()
    assert chain.do("//V//hot", SUBTENSOR.reveal_weights(1, [0, uid], [1, 9], SALT, 0)) is None
    assert row(chain, "//V") == {0: U16 // 9, uid: U16}
    chain.epoch()
    assert chain["Incentive", 1][uid] == 0
    assert chain["Incentive", 1][0] > 0


# Serving and commitments ------------------------------------------------------


def serve(chain, ip=0x7F000001, port=8091, ip_type=4, call="serve_axon", netuid=1):
    arguments = {"version": 1, "ip": ip, "port": port, "ip_type": ip_type}
    if call == "serve_axon":
        arguments |= {"protocol": 4, "placeholder1": 0, "placeholder2": 0}
    return chain.do("//M//hot", getattr(SUBTENSOR, call)(netuid, **arguments))


def test_an_axon_is_served_at_the_rate_limit_and_only_where_it_can_be(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite", serving_rate_limit=3)
    chain.register("//M")
    assert serve(chain, ip_type=5) == "InvalidIpType"
    assert serve(chain, ip=2**32 - 1) == "InvalidIpAddress"
    assert serve(chain, port=0) == "InvalidPort"
    assert serve(chain, netuid=5) == "SubnetNotExists"
    assert serve(chain) is None
    assert serve(chain, port=8092) == "ServingRateLimitExceeded"
    chain.block(2)
    assert serve(chain, ip=0x20010DB8 << 96, ip_type=6) is None
    axon = chain["Axons", 1, address("//M//hot")]
    assert (axon["ip"], axon["ip_type"], axon["block"]) == (0x20010DB8 << 96, 6, chain.store.head())
    assert serve(chain, call="serve_prometheus", ip=0) == "InvalidIpAddress"
    assert serve(chain, call="serve_prometheus", ip=5, port=9000) is None
    chain.fund("//Z", 5)
    chain.do("//Z", SUBTENSOR.try_associate_hotkey(address("//Z//hot")))
    unregistered = SUBTENSOR.serve_axon(1, 1, 5, 5, 4, 4, 0, 0)
    assert chain.do("//Z//hot", unregistered) == "HotKeyNotRegisteredInNetwork"


def publish(chain, *fields, uri="//M//hot"):
    return chain.do(uri, calls.Commitments.set_commitment(1, {"fields": [list(fields)]}))


def test_commitments_have_a_space_that_each_epoch_gives_back(chain):
    chain.register("//M")
    big = {"BigRaw": bytes(500)}
    assert publish(chain, big, big, big, {"Raw0": b""}) == "TooManyFieldsInCommitmentInfo"
    assert publish(chain, big, big, big) is None
    assert publish(chain, big, big, big) is None
    assert publish(chain, {"Raw1": b"x"}) is None  # counts for a hundred
    assert publish(chain, {"Raw1": b"x"}) == "SpaceLimitExceeded"
    chain.epoch()
    assert publish(chain, {"Raw1": b"x"}, "ResetBondsFlag") is None
    record = chain.view.get("Commitments", "CommitmentOf", 1, address("//M//hot"))
    assert record == {
        "block": chain.store.head(),
        "deposit": 0,
        "info": {"fields": [{"Raw1": "0x78"}, "ResetBondsFlag"]},
    }
    chain.fund("//Z", 5)
    chain.do("//Z", SUBTENSOR.try_associate_hotkey(address("//Z//hot")))
    assert publish(chain, {"Raw1": b"x"}, uri="//Z//hot") == "AccountNotAllowedCommit"


# Hyperparameters --------------------------------------------------------------


def test_the_owner_sets_what_owners_may_and_nobody_else_does(chain):
    chain.fund("//Bob", 5)
    assert chain.do("//Bob", ADMIN.sudo_set_immunity_period(1, 7)) == "BadOrigin"
    assert chain.do("//Alice", ADMIN.sudo_set_immunity_period(1, 7)) is None
    assert chain["ImmunityPeriod", 1] == 7
    assert chain.do("//Alice", ADMIN.sudo_set_kappa(1, 7)) == "BadOrigin"
    assert chain.do("//Alice", ADMIN.sudo_set_tempo(1, 5)) == "TempoOutOfBounds"
    assert chain.do("//Alice", ADMIN.sudo_set_tempo(1, 360)) is None
    assert chain["LastEpochBlock", 1] == chain.store.head()
    assert chain.do("//Alice", ADMIN.sudo_set_alpha_values(1, 30_000, 60_000)) == "LiquidAlphaDisabled"
    assert chain.do("//Alice", ADMIN.sudo_set_liquid_alpha_enabled(1, True)) is None
    assert chain.do("//Alice", ADMIN.sudo_set_alpha_values(1, 30_000, 60_000)) is None
    assert chain["AlphaValues", 1] == [30_000, 60_000]


def test_every_hyperparameter_that_the_sdk_lets_owners_set_can_be_set():
    # The SDK's names for proof-of-work registration and collateral have no meaning on a devnet.
    absent = {"sudo_set_network_pow_registration_allowed", "sudo_set_collateral_lock_share"}
    absent |= {"sudo_set_collateral_drain_ratio"}
    for setter, _ in OWNER_HYPERPARAMETERS.values():
        assert (("AdminUtils", setter) in CALLS) != (setter in absent), setter


def test_an_owner_may_ask_for_an_epoch_now(chain):
    head = chain.store.head()
    assert chain.do("//Alice", SUBTENSOR.trigger_epoch(1)) is None
    assert chain.do("//Alice", SUBTENSOR.trigger_epoch(1)) is None  # the first one ran in this block
    assert chain["LastEpochBlock", 1] == head + 2
    chain.fund("//Bob", 1)
    assert chain.do("//Bob", SUBTENSOR.trigger_epoch(1)) == "NotSubnetOwner"


# Errors -----------------------------------------------------------------------


PALLETS = ("SubtensorModule", "Commitments", "AdminUtils", "Balances", "Sudo", "MevShield", "Token", "")


def real(name):
    for pallet in PALLETS:
        try:
            return DispatchError(pallet, name)
        except KeyError:
            continue
    raise AssertionError(f"the real chain has no error {name}")


def test_every_error_that_a_call_can_raise_is_one_of_the_real_chain_and_has_a_meaning():
    names = set()
    for path in Path(pallets.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("ensure", "DispatchError"):
                names |= {
                    leaf.value
                    for argument in node.args
                    for leaf in ast.walk(argument)
                    if isinstance(leaf, ast.Constant)
                }
    names = (
        {name for name in names if isinstance(name, str) and name[:1].isupper()} - set(PALLETS) - ITEMS_READ
    )
    assert {"NeuronNoValidatorPermit", "SpaceLimitExceeded", "FundsUnavailable"} <= names
    for name in names:
        assert ChainError(real(name).docs, name).code is not ErrorCode.UNKNOWN, name
