"""The end of a tempo on the devnet: who is paid, how much, and out of what."""

import pytest
from devnet_hand import ADMIN, RAO, SUBTENSOR, Hand, address

U16 = 65535
V = address("//V//hot")


@pytest.fixture
def chain(tmp_path):
    return Hand(tmp_path / "devnet.sqlite")


def stakes(chain, netuid=1):
    return {
        hotkey: chain["TotalHotkeyAlpha", hotkey, netuid]
        for _, hotkey in chain.view.items("SubtensorModule", "Keys", netuid)
    }


def test_an_epoch_runs_a_tempo_after_the_last_and_moves_the_schedule_on(chain):
    assert chain["LastEpochBlock", 1] == 0
    chain.until(9)
    assert chain["SubnetEpochIndex", 1] == 0
    chain.block()
    assert (chain["LastEpochBlock", 1], chain["SubnetEpochIndex", 1]) == (10, 1)
    chain.block(3)
    assert chain.view.read("SubtensorModule", "BlocksSinceLastStep", 1) == 3
    chain.sudo(ADMIN.sudo_set_tempo(1, 4))  # starts the cycle anew, in block 14
    assert chain["LastEpochBlock", 1] == 14
    chain.until(18)
    assert (chain["LastEpochBlock", 1], chain["SubnetEpochIndex", 1]) == (18, 2)


def test_emission_is_split_18_41_41_and_follows_the_weights(chain):
    chain.register("//V", stake=100)
    small, middle, large = chain.register("//S", "//M", "//L")
    chain.epoch()
    assert chain.weights("//V", {small: 1, middle: 2, large: 4}) is None
    chain.epoch()
    before = stakes(chain)
    chain.epoch()
    after = stakes(chain)
    gained = {hotkey: after[hotkey] - before[hotkey] for hotkey in after}
    emitted = 10 * RAO
    assert sum(gained.values()) == pytest.approx(emitted, abs=100)
    assert gained[address("//Alice//owner")] == pytest.approx(0.18 * emitted, rel=1e-3)
    assert gained[V] == pytest.approx(0.41 * emitted, rel=1e-3)
    for uri, part in (("//S", 1), ("//M", 2), ("//L", 4)):
        assert gained[address(f"{uri}//hot")] == pytest.approx(0.41 * emitted * part / 7, rel=1e-3)
    paid = chain["Emission", 1]
    assert paid[large] == pytest.approx(4 * paid[small], rel=1e-3)
    assert chain["Incentive", 1][large] == pytest.approx(U16 * 4 / 7, abs=2)
    assert chain["Dividends", 1][chain.uid("//V")] == U16
    assert chain["Bonds", 1, chain.uid("//V")]


def test_moving_the_epoch_moves_when_is_paid_and_not_what(chain):
    owner = address("//Alice//owner")  # who has the only stake, and so gets all of it
    chain.epoch()
    before = chain["TotalHotkeyAlpha", owner, 1]
    chain.block(7)
    chain.sudo(ADMIN.sudo_set_tempo(1, 12))  # block 18: the cycle starts anew
    chain.epoch()
    assert chain.store.head() == 30
    assert chain["TotalHotkeyAlpha", owner, 1] - before == 20 * RAO


def test_dividends_go_to_all_who_stake_on_the_validator(chain):
    chain.register("//V", stake=100)
    chain.fund("//Nominator", 400)
    assert chain.do("//Nominator", SUBTENSOR.add_stake(V, 1, 300 * RAO)) is None
    (miner,) = chain.register("//M")
    chain.epoch()
    chain.weights("//V", {miner: 1})
    chain.epoch()
    held = {who: chain["Alpha", V, address(who), 1] for who in ("//V", "//Nominator")}
    chain.epoch()
    gained = {who: chain["Alpha", V, address(who), 1] - amount for who, amount in held.items()}
    share = held["//Nominator"] / sum(held.values())
    assert gained["//Nominator"] == pytest.approx(4.1 * RAO * 0.82 * share, rel=1e-3)
    assert sum(gained.values()) == pytest.approx(4.1 * RAO, rel=1e-3)


def test_a_validator_alone_with_an_opinion_moves_nothing_against_the_majority(chain):
    chain.register("//V1", stake=300)
    chain.register("//V2", stake=300)
    chain.register("//Liar", stake=200)
    honest, friend = chain.register("//M", "//F")
    chain.epoch()
    for uri in ("//V1", "//V2"):
        assert chain.weights(uri, {honest: 1}) is None
    assert chain.weights("//Liar", {friend: 1}) is None
    for _ in range(3):
        chain.epoch()
    assert chain["Incentive", 1][honest] == U16
    assert chain["Incentive", 1][friend] == 0
    dividends = chain["Dividends", 1]
    assert dividends[chain.uid("//Liar")] < dividends[chain.uid("//V1")] / 2


def test_what_the_owners_hotkey_would_earn_as_a_miner_is_burned(chain):
    chain.register("//V", stake=100)
    chain.epoch()
    assert chain.weights("//V", {0: 1}) is None
    chain.epoch()
    before = stakes(chain)
    chain.epoch()
    after = stakes(chain)
    owner = address("//Alice//owner")
    assert chain["Incentive", 1][0] == U16
    assert after[owner] - before[owner] == pytest.approx(1.8 * RAO, rel=1e-3)


def test_a_validator_that_stays_silent_falls_out_of_the_consensus(chain):
    chain.sudo(ADMIN.sudo_set_activity_cutoff_factor(1, 1000))  # one tempo
    (validator,) = chain.register("//V", stake=100)
    (miner,) = chain.register("//M")
    chain.epoch()
    chain.weights("//V", {miner: 1})
    chain.epoch()
    assert chain["Incentive", 1][miner] == U16
    for _ in range(2):
        chain.epoch()
    assert not chain["Active", 1][validator]
    assert chain["Incentive", 1][miner] == 0


def test_stake_below_the_threshold_gives_no_permit(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite", stake_threshold=50)
    (poor,) = chain.register("//P", stake=20)
    (rich,) = chain.register("//R", stake=60)
    chain.epoch()
    assert [chain["ValidatorPermit", 1][uid] for uid in (poor, rich)] == [False, True]


def test_root_stake_counts_everywhere_with_the_tao_weight(tmp_path):
    chain = Hand(tmp_path / "devnet.sqlite", stake_threshold=50)
    (uid,) = chain.register("//P", stake=20)
    chain.fund("//P", 400)
    assert chain.do("//P", SUBTENSOR.add_stake(address("//P//hot"), 0, 200 * RAO)) is None
    chain.epoch()  # 20 alpha and 0.18 * 200 TAO
    assert chain["ValidatorPermit", 1][uid]


@pytest.mark.parametrize("yuma3", [False, True])
def test_both_kinds_of_yuma_pay_the_same_shares_in_the_steady_state(chain, yuma3):
    chain.sudo(ADMIN.sudo_set_yuma3_enabled(1, yuma3))
    chain.sudo(ADMIN.sudo_set_liquid_alpha_enabled(1, yuma3))
    chain.register("//V", stake=100)
    one, two = chain.register("//A", "//B")
    chain.epoch()
    chain.weights("//V", {one: 1, two: 3})
    for _ in range(3):
        chain.epoch()
    assert chain["Incentive", 1][two] == pytest.approx(3 * chain["Incentive", 1][one], rel=1e-3)
    bonds = dict(chain["Bonds", 1, chain.uid("//V")])
    assert set(bonds) == {one, two}
