"""What the SDK returns, as our records."""

import pytest
from bittensor.metagraph import _build

from tensorage.chain import convert
from tensorage.chain.network import ChainSettings, open_chain
from tensorage.chain.types import BlockRef, Endpoint, Metagraph
from tensorage.errors import UsageError

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
BLOCK = BlockRef(100, bytes(32))


def graph(**changes) -> Metagraph:
    """A metagraph as SubnetInfoRuntimeApi.get_metagraph gives it, through the SDK's own decoder."""
    record = {
        "netuid": 7,
        "block": 100,
        "tempo": 360,
        "last_step": 60,
        "blocks_since_last_step": 40,
        "owner_hotkey": ALICE,
        "owner_coldkey": BOB,
        "network_registered_at": 1,
        "hotkeys": [ALICE, BOB],
        "coldkeys": [BOB, BOB],
        "axons": [
            {"ip": 0xCB007107, "port": 8091, "ip_type": 4, "block": 5},
            {"ip": 0, "port": 0, "ip_type": 0, "block": 0},
        ],
        "active": [True, False],
        "validator_permit": [True, True],
        "last_update": [90, 0],
        "block_at_registration": [3, 99],
        "consensus": [65535, 0],
        "incentives": [0, 32768],
        "dividends": [65535, 0],
        "emission": [1_500_000_000, 0],
        "alpha_stake": [2_000_000_000, 0],
        "tao_stake": [3_250_000_000, 0],
        "total_stake": [5_250_000_000, 0],
        **changes,
    }
    return convert.metagraph(_build(7, record, {}), BLOCK)


def test_a_row_of_the_metagraph_becomes_a_neuron_in_whole_tokens_and_shares():
    alice = graph().by_hotkey(ALICE)
    assert alice.endpoint == Endpoint("203.0.113.7", 8091)
    assert (alice.tao_stake, alice.alpha_stake, alice.total_stake) == (3.25, 2.0, 5.25)
    assert (alice.emission, alice.dividends, alice.consensus) == (1.5, 1.0, 1.0)
    assert (alice.uid, alice.last_update, alice.registered_at, alice.active) == (0, 90, 3, True)
    assert alice.public_key.hex() == "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"


def test_a_neuron_that_serves_nothing_has_no_endpoint_and_one_without_stake_validates_nothing():
    subnet = graph()
    assert subnet.by_uid(1).endpoint is None
    assert subnet.by_uid(2) is None
    assert subnet.by_hotkey("somebody else") is None
    assert [neuron.uid for neuron in subnet.validators] == [0]


def test_an_ipv6_axon_survives_both_of_its_spellings_on_the_chain():
    axon = {"ip": 0x2001_0DB8 << 96 | 1, "port": 9000, "ip_type": 6, "block": 12}
    wanted = Endpoint("2001:0db8::1", 9000)
    assert graph(axons=[axon, None]).by_uid(0).endpoint == wanted
    assert convert.axon_record(axon) == convert.AxonRecord(wanted, 12)
    assert wanted.url == "http://[2001:db8::1]:9000"


@pytest.mark.parametrize(
    "text", ["0.0.0.0:0", "0.0.0.0:8091", "[::]:8091", "10.0.0.1:0", "10.0.0.1", "", "x:1"]
)
def test_what_is_no_reachable_endpoint_is_none(text):
    assert Endpoint.parse(text) is None


@pytest.mark.parametrize("text", ["10.0.0.1:65536", "10.0.0.1:-1", "[1::2::3]:1"])
def test_an_endpoint_out_of_range_is_none(text):
    assert Endpoint.parse(text) is None


def test_an_axon_that_was_never_served_has_no_record():
    assert convert.axon_record(None) is None
    assert convert.axon_record({"ip": 0, "port": 0, "ip_type": 0, "block": 0}) == convert.AxonRecord(None, 0)


def test_commitments_are_the_bytes_that_were_committed():
    assert convert.raw_commitment([{"Raw5": "0x68656c6c6f"}]) == b"hello"
    assert convert.raw_commitment([{"Raw2": "0xff00"}, {"Raw1": "0x01"}]) == b"\xff\x00\x01"
    assert convert.raw_commitment([{"Raw0": "0x"}]) == b""
    assert convert.raw_commitment([{"TimelockEncrypted": {"encrypted": "0x00", "reveal_round": 1}}]) is None
    assert convert.raw_commitment(["ResetBondsFlag"]) is None
    assert convert.raw_commitment([{"Raw2": "0xzz"}]) is None


def test_a_hash_is_32_bytes():
    assert convert.block_hash("0x" + "ab" * 32) == b"\xab" * 32
    with pytest.raises(ValueError, match="block hash"):
        convert.block_hash("0xabcd")


@pytest.mark.parametrize(
    ("network", "endpoint"), [("finnney", None), ("http://node", None), ("finney", "http://node"), ("", None)]
)
def test_a_network_that_does_not_exist_is_a_usage_error(network, endpoint):
    with pytest.raises(UsageError) as error:
        ChainSettings(network, endpoint, 7)
    assert error.value.exit_code == 2
    assert error.value.remedy


def test_named_networks_have_the_sdk_s_fallbacks_and_a_raw_endpoint_has_none():
    finney = open_chain(ChainSettings("finney", None, 7))
    assert finney.fallback_endpoints
    assert finney.archive_endpoints
    for settings in (
        ChainSettings("finney", "ws://10.0.0.1:9944", 7),
        ChainSettings("ws://10.0.0.1:9944", None, 7),
    ):
        node = open_chain(settings)
        assert node.endpoint == "ws://10.0.0.1:9944"
        assert not node.fallback_endpoints
        assert not node.archive_endpoints
