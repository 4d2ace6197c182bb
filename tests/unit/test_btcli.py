"""btcli's answers as its two channels and exit codes give them; the texts were printed by btcli 11.3."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tensorage.chain.btcli import Btcli, BtcliError, find, read_answer
from tensorage.errors import UsageError

REFUSED_BY_CHAIN = """{
  "success": false,
  "message": "Hotkey is already registered on this subnet.",
  "block_hash": "0x12",
  "error": {
    "message": "Hotkey is already registered on this subnet.",
    "name": "HotKeyAlreadyRegisteredInSubNet",
    "code": "already_exists",
    "remediation": "the object or state already exists; treat the goal as met or pick a different target"
  }
}
"""
UNREACHABLE = """{
  "error": "could not reach ws://127.0.0.1:1: could not connect to any endpoint",
  "help": "check the endpoint and network connection, then retry"
}
"""
FOUND_BEFOREHAND = """{
  "message": "Serving axon too soon.",
  "name": "ServingRateLimitExceeded",
  "code": "rate_limited",
  "remediation": "wait for the rate-limit window to pass, then retry"
}
"""
USAGE = """Usage: btcli subnets [OPTIONS] COMMAND [ARGS]...
Try 'btcli subnets -h' for help.
╭─ Error ──────────────────────────────────────────────────────────────────────╮
│ No such command 'register-pow'. Did you mean 'register'?                     │
╰──────────────────────────────────────────────────────────────────────────────╯
"""


def refusal(exit_code: int, stdout: str, stderr: str) -> BtcliError:
    with pytest.raises(BtcliError) as caught:
        read_answer(exit_code, stdout, stderr)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("stdout", "value"),
    [
        ('{\n  "burn_cost": "τ1.000000000",\n  "tao": 1.0\n}\n', {"burn_cost": "τ1.000000000", "tao": 1.0}),
        ("null\n", None),
        ("3\n", 3),
        ('\x1b[1m{\x1b[0m"success": true\x1b[1m}\x1b[0m\n', {"success": True}),
        ('warning: slow endpoint [1]\n{\n "success": true}', {"success": True}),
        ("[]", []),
    ],
)
def test_what_stands_on_stdout_is_the_answer(stdout: str, value: object) -> None:
    assert read_answer(0, stdout, "some log line\n") == value


def test_a_refusal_by_the_chain_is_read_from_stdout() -> None:
    error = refusal(1, REFUSED_BY_CHAIN, "")
    assert error.code == "already_exists"
    assert str(error).startswith("Hotkey is already registered on this subnet. The object or state")


def test_success_false_is_a_refusal_whatever_the_exit_code() -> None:
    assert refusal(0, '{"success": false, "message": "dropped"}', "").message == "dropped"


def test_a_refusal_by_btcli_is_read_from_stderr() -> None:
    error = refusal(1, "", "Retrying...\n" + UNREACHABLE)
    assert (error.code, error.remedy) == ("", "Check the endpoint and network connection, then retry")
    assert error.message.startswith("could not reach ws://127.0.0.1:1")


def test_an_error_of_the_chain_that_btcli_found_beforehand_keeps_its_code() -> None:
    error = refusal(1, "", FOUND_BEFOREHAND)
    assert (error.code, error.message) == ("rate_limited", "Serving axon too soon")


def test_wrong_arguments_are_told_from_the_text_in_the_frame() -> None:
    error = refusal(2, "", USAGE)
    assert "No such command 'register-pow'. Did you mean 'register'?" in error.message


def test_a_traceback_is_told_by_its_last_line() -> None:
    trace = "Traceback (most recent call last):\n  File \"x\", line 1\nAttributeError: no attribute 'type'\n"
    assert (
        refusal(1, "", trace).message == "btcli failed with exit code 1: AttributeError: no attribute 'type'"
    )


@pytest.mark.parametrize(("exit_code", "stdout"), [(0, ""), (0, "registered!"), (1, ""), (1, "{"), (-9, "")])
def test_no_answer_is_never_taken_for_success(exit_code: int, stdout: str) -> None:
    assert refusal(exit_code, stdout, "").code == ""


def program(body: str) -> Btcli:
    return Btcli([sys.executable, "-c", body], "devnet", "w", "h", "/wallets")


def test_the_wallet_and_the_network_go_with_every_command_and_consent_with_writes_only() -> None:
    client = Btcli(["btcli"], "test", "w", "h", "/wallets", Path("/secret"))
    assert client.reading("query", "uid") == [
        *("btcli", "query", "uid", "-n", "test", "--wallet-path", "/wallets", "-w", "w", "-H", "h", "--json")
    ]
    assert client.writing("axon", "set")[-3:] == ["--wallet-password-file", "/secret", "--yes"]
    assert client.key == "w/h"


def test_a_program_runs_without_a_terminal_and_without_colours() -> None:
    body = "import json,os,sys;print(json.dumps([sys.stdin.read(), os.environ['NO_COLOR'], sys.argv[1:]]))"
    assert program(body).read("a b", "$HOME")[:2] == ["", "1"]
    assert program(body).read("a b", "$HOME")[2][:2] == ["a b", "$HOME"]


def test_a_write_without_a_receipt_is_no_success() -> None:
    with pytest.raises(BtcliError, match="no receipt"):
        program("print('[]')").write("axon", "set")


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="/no/such/btcli cannot be run"):
        Btcli(["/no/such/btcli"], "test", "w", "h", "/wallets").read("query", "uid")


def test_btcli_may_be_a_command_of_several_words() -> None:
    assert find("env X='a b' btcli") == ["env", "X=a b", "btcli"]
    assert find()[0].endswith("/btcli")
    with pytest.raises(UsageError, match="is no command"):
        find("'")
