"""`Chain` on a devnet: what it reads, what it writes, and what it says when it may not."""

import asyncio

import pytest
from bittensor import Client, calls
from chain_net import NETUID, Net, eventually, permitted

from tensorage.chain.devnet import open_substrate
from tensorage.chain.types import Endpoint
from tensorage.chain.wallet import Hotkey
from tensorage.errors import ChainError, NotRegisteredError, UsageError

V, M1, M2 = (Hotkey.from_uri(uri) for uri in ("//V", "//M1", "//M2"))


@pytest.fixture
async def net(tmp_path):
    async with Net(tmp_path / "devnet.sqlite").producing() as net:
        await net.populate()
        yield net


async def sudo(net, call):
    alice = Hotkey.from_uri("//Alice").keypair
    async with Client("local", substrate=open_substrate(net.endpoint)) as client:
        wrapped = calls.Sudo.sudo(call=await client.compose(call))
        (await client.submit_call(wrapped, alice)).raise_for_failure()


async def test_the_chain_is_known_by_its_first_block_and_its_blocks_by_their_hashes(net):
    async with net.chain() as chain:
        assert chain.genesis_hash == await chain.block_hash(0)
        assert len(chain.genesis_hash) == 32
        assert chain.block_time == pytest.approx(0.1)
        head, finalized = await chain.head(), await chain.finalized()
        assert finalized.number <= head.number + 2
        assert await chain.block_hash(finalized.number) == finalized.hash
        with pytest.raises(ChainError):
            await chain.block_hash(10**6)


async def test_a_metagraph_has_every_neuron_with_its_stake(net):
    async with net.chain() as chain:
        subnet = await chain.metagraph(max_age=0)
        assert {V.ss58, M1.ss58, M2.ss58} <= {neuron.hotkey for neuron in subnet.neurons}
        staked = subnet.by_hotkey(V.ss58)
        assert staked.total_stake > 0
        assert subnet.by_uid(staked.uid) is staked
        assert subnet.by_hotkey(M1.ss58).endpoint is None
        assert subnet.block.hash == await chain.block_hash(subnet.block.number)
        assert chain.metagraph_now() is await chain.metagraph(max_age=60)


async def test_a_registered_hotkey_finds_its_neuron_and_another_one_the_command_to_register(net):
    async with net.chain("//M1") as chain:
        assert (await chain.require_registered()).hotkey == M1.ss58
    async with net.chain("//Nobody") as chain:
        with pytest.raises(NotRegisteredError, match=r"devnet register --path \S+ --netuid 1$") as error:
            await chain.require_registered()
        assert error.value.exit_code == 2
        with pytest.raises(NotRegisteredError):
            await chain.serve_axon(Endpoint("127.0.0.1", 1000))
        with pytest.raises(NotRegisteredError):
            await chain.set_weights({0: 1.0}, 0)
        with pytest.raises(NotRegisteredError):
            await chain.set_commitment(b"hello")


async def test_a_subnet_that_is_not_there_is_a_usage_error(net):
    other = net.settings.__class__(net.settings.network, net.settings.endpoint, 77)
    async with net.chain().__class__(other) as chain:
        with pytest.raises(UsageError, match="no subnet 77"):
            await chain.metagraph(max_age=0)


@pytest.mark.parametrize("ip", ["127.0.0.1", "2001:db8::7"])
async def test_an_axon_is_published_once_and_a_change_waits_for_the_rate_limit(net, ip):
    limit = 5
    async with net.chain("//M1") as chain:
        assert (await chain.parameters()).serving_rate_limit == limit
        assert await chain.serve_axon(Endpoint(ip, 1001)) is True
        assert await chain.serve_axon(Endpoint(ip, 1001)) is False
        assert await chain.serve_axon(Endpoint(ip, 1002)) is True
        first, second = await net.calls("serve_axon")
        assert second - first >= limit
        assert (await chain.require_registered()).endpoint is not None

        async def seen():
            return (await chain.metagraph(max_age=0)).by_hotkey(M1.ss58).endpoint == Endpoint(ip, 1002)

        await eventually(seen)


async def test_weights_are_set_as_shares_and_not_tried_again_before_the_rate_limit(net):
    async with net.chain("//V") as chain:
        await permitted(chain, V)
        subnet = await chain.metagraph(max_age=0)
        one, two = (subnet.by_hotkey(key.ss58).uid for key in (M1, M2))
        assert (await chain.set_weights({one: 0.0}, 0)).status == "nothing"
        done = await chain.set_weights({one: 1e9, two: 3e9}, 0)
        assert (done.status, done.reveal_round) == ("set", None)
        again = await chain.set_weights({one: 1.0}, 0)
        assert again.status == "rate_limited"
        assert again.block == done.block + 5
        assert await net.calls("set_mechanism_weights") == [done.block]
        async with Client("local", substrate=open_substrate(net.endpoint)) as client:
            row = (await client.weights.weights(NETUID))[subnet.by_hotkey(V.ss58).uid]
        assert row == pytest.approx({one: 0.25, two: 0.75}, abs=1e-4)


async def test_weights_of_a_hotkey_without_a_permit_are_refused_with_the_reason(net):
    async with net.chain("//M1") as chain:
        await asyncio.sleep(0.3)  # beyond the rate limit that counts from registration
        outcome = await chain.set_weights({0: 0.5, 1: 0.5}, 0)
        assert outcome.status == "refused"
        assert "\n" not in outcome.message
        assert outcome.message.split(":")[0] in ("NeuronNoValidatorPermit", "NotEnoughStakeToSetWeights")


async def test_an_old_version_key_is_refused(net):
    await sudo(net, calls.AdminUtils.sudo_set_weights_version_key(netuid=NETUID, weights_version_key=5))
    async with net.chain("//V") as chain:
        await permitted(chain, V)
        assert (await chain.parameters(max_age=0)).weights_version == 5
        refused = await chain.set_weights({0: 1.0}, 4)
        assert refused.status == "refused"
        assert refused.message.startswith("IncorrectWeightVersionKey")
        assert (await chain.set_weights({0: 1.0}, 5)).status == "set"


async def test_a_subnet_with_commit_reveal_gets_a_commit(net):
    await sudo(net, calls.AdminUtils.sudo_set_commit_reveal_weights_enabled(netuid=NETUID, enabled=True))
    async with net.chain("//V") as chain:
        await permitted(chain, V)
        assert (await chain.parameters(max_age=0)).commit_reveal
        outcome = await chain.set_weights({0: 1.0}, 0)
        assert outcome.status == "committed"
        assert outcome.reveal_round > 0
        assert not await net.calls("set_mechanism_weights")
        assert (await chain.set_weights({0: 1.0}, 0)).status == "rate_limited"


@pytest.mark.parametrize("data", [b"hello", b"\x00\xff" * 64, b"0x6869"])
async def test_a_commitment_reads_back_as_the_bytes_it_was(net, data):
    async with net.chain("//M1") as chain:
        await chain.set_commitment(data)
        assert (await chain.commitments())[M1.ss58] == data
        with pytest.raises(ValueError, match="at most 128"):
            await chain.set_commitment(bytes(129))


async def test_the_epoch_and_the_parameters_are_those_of_the_subnet(net):
    async with net.chain() as chain:
        epoch = await chain.epoch()
        assert epoch.tempo == (await chain.parameters()).tempo == 10
        assert epoch.last_epoch_block <= epoch.block < epoch.next_epoch_block + 2
        assert await chain.balance(Hotkey.from_uri("//Alice").ss58) > 1000
