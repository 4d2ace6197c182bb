"""Placement: declumped over owners and networks, whoever the miners are."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tensorage.gateway.placement import Candidate, Taken, bearable, choose, network_of, note

SEED = bytes(range(32))


@st.composite
def candidates(draw):
    count = draw(st.integers(0, 60))
    owners = draw(st.integers(1, 40))
    networks = draw(st.integers(1, 12))
    return [
        Candidate(
            f"hotkey{number}",
            f"coldkey{draw(st.integers(0, owners))}",
            f"network{draw(st.integers(0, networks))}",
            draw(st.sampled_from([0.0, 0.0, 1.0, 5.0, 1e12])),
            draw(st.sampled_from([0, 1, 9])),
        )
        for number in range(count)
    ]


@given(candidates(), st.integers(0, 40), st.integers(0, 10), st.binary(min_size=32, max_size=32))
def test_no_coldkey_is_used_twice_and_as_many_miners_are_found_as_there_are_owners(miners, wanted, had, seed):
    taken = [Taken(f"coldkey{number}", f"network{number}") for number in range(had)]
    chosen = choose(miners, taken, wanted, seed)
    owners = {miner.coldkey for miner in miners if miner.free_chunks} - {place.coldkey for place in taken}
    assert len({miner.coldkey for miner in chosen}) == len(chosen) == min(wanted, len(owners))
    assert not {miner.coldkey for miner in chosen} & {place.coldkey for place in taken}
    assert all(miner.free_chunks for miner in chosen)
    assert chosen == choose(list(reversed(miners)), taken, wanted, seed)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(1, 40),
    st.binary(min_size=32, max_size=32),
)
def test_no_network_has_more_than_its_even_share_unless_the_others_are_full(sizes, wanted, seed):
    miners = [
        Candidate(f"{network}-{number}", f"{network}-{number}", str(network), 1.0 + number, 1)
        for network, size in enumerate(sizes)
        for number in range(size)
    ]
    chosen = choose(miners, [], wanted, seed)
    count = Counter(miner.network for miner in chosen)
    most = max(count.values())
    for network, size in enumerate(sizes):
        assert count[str(network)] >= min(size, most - 1)


@given(candidates(), st.integers(1, 40), st.binary(min_size=32, max_size=32))
def test_the_unproven_come_only_when_no_proven_owner_is_left(miners, wanted, seed):
    chosen = choose(miners, [], wanted, seed)
    proven = {miner.coldkey for miner in miners if miner.free_chunks and miner.score > 0}
    assert sum(miner.score > 0 for miner in chosen) == min(wanted, len(proven))


def test_a_miner_with_three_times_the_score_is_drawn_three_times_as_often():
    miners = [Candidate("a", "a", "n", 3.0, 1), Candidate("b", "b", "n", 1.0, 1)]
    draws = Counter(choose(miners, [], 1, number.to_bytes(32, "big"))[0].hotkey for number in range(4000))
    assert 2.6 < draws["a"] / draws["b"] < 3.5


def test_addresses_are_grouped_by_what_one_tenant_usually_has():
    assert network_of("203.0.113.9") == network_of("203.0.113.250") != network_of("203.0.114.9")
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:3::9") != network_of("2001:db8:2::1")
    assert network_of("::ffff:203.0.113.9") == network_of("203.0.113.9")


def test_the_networks_of_all_miners_are_not_worked_out_for_everyone_who_asks():
    miners = [f"203.0.{number}.1" for number in range(256)]
    networks = [network_of(ip) for ip in miners]
    known = network_of.cache_info().hits
    assert [network_of(ip) for ip in miners] == networks and len(set(networks)) == 256
    assert network_of.cache_info().hits == known + 256


def test_a_small_network_gets_the_widest_spread_at_the_same_rate_and_is_told():
    assert [bearable(n) for n in (0, 1, 2, 3, 12, 29, 30, 200)] == [
        (1, 0),
        (1, 0),
        (1, 1),
        (1, 2),
        (4, 8),
        (9, 20),
        (10, 20),
        (10, 20),
    ]
    assert note(12, 1) == (
        "miners with room have only 12 owners, so a file gets 12 shards instead of 30;"
        " they lie on only 1 network"
    )
    assert note(1, 1) == "miners with room have only 1 owner, so a file gets 1 shards instead of 30"
    assert note(30, 4) == "miners lie on only 4 networks, so some shards of a file share one"
    assert note(30, 30) == ""
    assert note(0, 0)
