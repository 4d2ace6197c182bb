"""The devnet's substrate keeps the SDK's contract, and notices when the contract grows."""

import inspect
from pathlib import Path

import bittensor
import pytest

from tensorage.chain.devnet import DevnetSubstrate, default_path, is_devnet, locate, url
from tensorage.errors import UsageError

#: What `bittensor.Substrate` asks for in 11.3. A new name here is a new method to write.
CONTRACT = {
    "account_next_index",
    "balance",
    "block_hash",
    "block_number",
    "block_time",
    "blocks",
    "close",
    "compose",
    "connect",
    "constant",
    "decode_scale",
    "estimate_fee",
    "estimate_weight",
    "events",
    "finalized_block_number",
    "find_extrinsic",
    "get_block",
    "map_has_entries",
    "mev_next_key",
    "multisig_account",
    "prepare",
    "query",
    "query_batch",
    "query_map",
    "runtime_call",
    "sign_extrinsic",
    "spec_version",
    "submit",
    "submit_multisig",
    "submit_signature",
    "submit_signed",
    "token_symbols",
}


def test_the_contract_of_the_sdk_is_the_one_that_the_devnet_was_written_for():
    protocol = bittensor.Substrate
    names = {name for name in vars(protocol) if not name.startswith("_")} | set(protocol.__annotations__)
    assert names == CONTRACT


@pytest.mark.parametrize("name", sorted(CONTRACT - {"token_symbols"}))
def test_each_method_takes_what_the_contract_gives_it(name):
    wanted, given = (
        inspect.signature(getattr(owner, name)) for owner in (bittensor.Substrate, DevnetSubstrate)
    )
    for parameter in wanted.parameters.values():
        ours = given.parameters.get(parameter.name)
        assert ours is not None, parameter.name
        assert ours.kind == parameter.kind, parameter.name
        assert ours.default == parameter.default, parameter.name
    extra = set(given.parameters) - set(wanted.parameters)
    assert all(given.parameters[name].default is not inspect.Parameter.empty for name in extra)
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    ours = getattr(DevnetSubstrate, name)
    if name == "blocks":
        assert inspect.isasyncgenfunction(ours)  # the contract only says that it returns an iterator
    else:
        theirs = getattr(bittensor.Substrate, name)
        assert [kind(ours) for kind in kinds] == [kind(theirs) for kind in kinds]


def test_a_devnet_is_named_by_a_network_an_endpoint_a_path_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("TENSORAGE_DEVNET", raising=False)
    assert default_path() == Path.home() / ".tensorage" / "devnet.sqlite"
    monkeypatch.setenv("TENSORAGE_DEVNET", str(tmp_path / "a"))
    assert locate("devnet") == locate(None) == tmp_path / "a"
    monkeypatch.setenv("TENSORAGE_DEVNET", f"sqlite://{tmp_path}/b")
    assert locate("devnet") == tmp_path / "b"
    assert locate(url(tmp_path / "c")) == tmp_path / "c"
    assert is_devnet("devnet")
    assert is_devnet("sqlite:///x")
    assert is_devnet("finney", "sqlite:///x")
    assert not is_devnet("devnet", "ws://127.0.0.1:9944")  # an endpoint wins
    assert not is_devnet("local")
    assert not is_devnet(None)
    for wrong in ("sqlite://relative", "postgres:///x"):
        with pytest.raises(UsageError, match="sqlite:///absolute/path"):
            locate(wrong)
