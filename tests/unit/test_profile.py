"""The small sector profile is for chains without value."""

from __future__ import annotations

import pytest

from tensorage.chain.genesis import FINNEY_GENESIS
from tensorage.chain.network import ChainSettings
from tensorage.errors import UsageError
from tensorage.service.profile import is_harmless, profile_of


@pytest.mark.parametrize(
    ("network", "endpoint", "default"),
    [("devnet", None, 0), ("finney", "sqlite:///x", 0), ("local", None, 1), ("finney", None, 1)],
)
def test_the_small_one_is_the_default_on_a_devnet_only(network, endpoint, default):
    assert profile_of(None, ChainSettings(network, endpoint, 1)) == default


@pytest.mark.parametrize(
    ("network", "endpoint"),
    [
        ("devnet", None),
        ("local", None),
        ("finney", "sqlite:///x"),
        ("finney", "ws://127.0.0.1:9944"),
        ("ws://localhost:9944", None),
    ],
)
def test_where_nothing_is_to_lose_it_may_be_asked_for(network, endpoint):
    assert profile_of(0, ChainSettings(network, endpoint, 1)) == 0


@pytest.mark.parametrize(
    ("network", "endpoint"), [("finney", None), ("test", None), ("local", "ws://node.example:9944")]
)
def test_where_others_would_believe_in_it_it_is_refused(network, endpoint):
    with pytest.raises(UsageError, match="proves nothing"):
        profile_of(0, ChainSettings(network, endpoint, 1))


def test_a_node_on_this_machine_that_follows_finney_is_not_harmless():
    chain = ChainSettings("local", None, 7)
    assert is_harmless(chain, bytes(32))
    assert not is_harmless(chain, FINNEY_GENESIS)
