"""A chain that is not there: one line for a command, patience for a service, one log line an outage."""

import asyncio
import logging
import socket

import pytest

from tensorage.chain import connection
from tensorage.chain.client import Chain, ChainSettings
from tensorage.chain.connection import LONGEST_DELAY, retry_delay
from tensorage.errors import ChainError, StaleChainError, UsageError


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def settings(port: int) -> ChainSettings:
    return ChainSettings("finney", f"ws://127.0.0.1:{port}", 7)


async def test_a_command_ends_with_one_line_and_exit_code_2(closed_port, caplog):
    with pytest.raises(UsageError) as error:
        async with Chain(settings(closed_port)):
            pass
    assert error.value.exit_code == 2
    assert not caplog.records  # the error is the one line
    assert f"ws://127.0.0.1:{closed_port} does not answer" in str(error.value)
    assert "--subtensor.chain_endpoint" in error.value.remedy
    assert "\n" not in str(error.value)


async def test_a_node_that_accepts_and_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UsageError, match="does not answer"):
        async with Chain(settings(silent.getsockname()[1])):
            pass


async def test_a_service_waits_and_logs_the_outage_once(closed_port, caplog, monkeypatch):
    monkeypatch.setattr(connection, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(connection, "LONGEST_DELAY", 0.05)
    caplog.set_level(logging.INFO, logger="tensorage")
    chain = Chain(settings(closed_port), patient=True)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(chain.__aenter__(), 3.0)
    assert len([record for record in caplog.records if "chain is away" in record.message]) == 1
    await chain.close()


async def test_nothing_is_permitted_by_a_chain_that_was_never_read(closed_port):
    chain = Chain(settings(closed_port))
    with pytest.raises(StaleChainError):
        chain.metagraph_now()
    with pytest.raises(StaleChainError):
        await chain.metagraph(max_age=10)
    for ask in (chain.head, chain.epoch, chain.parameters, chain.commitments):
        with pytest.raises(ChainError):
            await ask()
    with pytest.raises(ChainError, match="without"):
        await chain.set_weights({0: 1.0}, 0)


async def test_a_failed_connection_is_not_tried_again_at_once(closed_port):
    now = 1000.0
    chain = Chain(settings(closed_port), clock=lambda: now)
    with pytest.raises(ChainError, match="does not answer"):
        await chain.head()
    with pytest.raises(ChainError, match="next attempt"):
        await chain.head()
    now += 10
    with pytest.raises(ChainError, match="does not answer"):
        await chain.head()


def test_the_delay_doubles_up_to_a_minute_and_is_spread():
    middle = [retry_delay(failures, 0.5) for failures in range(1, 40)]
    assert middle[:4] == [0.5, 1.0, 2.0, 4.0]
    assert middle[-1] == LONGEST_DELAY
    assert retry_delay(3, 0.0) == 1.0
    assert retry_delay(3, 0.999) < 3.0
