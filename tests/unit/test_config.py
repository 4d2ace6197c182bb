"""Flags: spellings, precedence, and errors of one line."""

import io
import sys
from pathlib import Path

import pytest
import typer

from tensorage import cli
from tensorage.chain.devnet.cli import devnet_app
from tensorage.config import (
    Config,
    DbRootPath,
    Netuid,
    Network,
    SizeInGb,
    WalletName,
    confirmed,
    netuid_of,
    read_json,
    run,
)
from tensorage.errors import StorageError, UsageError

SEEN: list[tuple[str, int | None]] = []
app = typer.Typer(add_completion=False)


@app.command()
def command(
    network: Network = "finney",
    netuid: Netuid = None,
    wallet_name: WalletName = "default",
    config: Config = None,
) -> None:
    """A command with shared flags."""
    SEEN.append((network, netuid_of(network, netuid)))
    if wallet_name == "broken":
        raise StorageError("disk /d is gone", remedy="Bring it back")
    if wallet_name == "missing":
        raise UsageError("there is no wallet", remedy="Make one")


def last(*arguments: str) -> tuple[str, int | None]:
    assert run(app, arguments) == 0
    return SEEN[-1]


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path, monkeypatch):
    path = tmp_path / "c.toml"
    path.write_text('[subtensor]\nnetwork = "test"\n')
    assert last() == ("finney", 7)
    assert last("--config", str(path)) == ("test", 12)
    monkeypatch.setenv("BT_NETWORK", "devnet")
    assert last("--config", str(path)) == ("devnet", 1)
    assert last("--config", str(path), "--subtensor.network", "finney") == ("finney", 7)


@pytest.mark.parametrize("spelling", ["--subtensor.network", "--subtensor-network", "--network"])
def test_dotted_and_dashed_spellings_mean_the_same(spelling):
    assert last(spelling, "test") == ("test", 12)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--netuid", "many"], 2, "'--netuid': Input should be a valid integer"),
        (["--no-such-flag"], 2, "--no-such-flag"),
        (["--subtensor.network", "ws://10.0.0.1:9944"], 2, "--netuid"),
        (["--wallet.name", "missing"], 2, "there is no wallet. Make one"),
        (["--wallet.name", "broken"], 1, "disk /d is gone. Bring it back"),
        (["--config", "nowhere.toml"], 2, "nowhere.toml"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_remedy(arguments, code, said, capsys):
    assert run(app, arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert said in error


def test_one_value_in_a_file_stands_for_a_flag_that_may_be_repeated(tmp_path):
    roots: list[list[Path]] = []
    several = typer.Typer(add_completion=False)

    @several.command()
    def command(db_root_path: DbRootPath, config: Config = None) -> None:
        roots.append(db_root_path)

    path = tmp_path / "c.toml"
    for text in ('"/a"', '["/a", "/b"]'):
        path.write_text(f"db_root_path = {text}\n")
        assert run(several, ["--config", str(path)]) == 0
    assert roots == [[Path("/a")], [Path("/a"), Path("/b")]]


@pytest.mark.parametrize("size", ["inf", "nan", "-1", "1e300"])
def test_a_size_that_no_disk_has_is_refused(size, capsys):
    sized = typer.Typer(add_completion=False)

    @sized.command()
    def command(size_in_gb: SizeInGb = None) -> None:
        """Takes a size."""

    assert run(sized, ["--size_in_gb", size]) == 2
    assert "'--size_in_gb'" in capsys.readouterr().err


def test_a_group_without_a_command_says_what_it_has(capsys):
    for group in (cli.app, devnet_app):
        assert run(group, []) == 2
        said = "".join(capsys.readouterr())
        assert "Commands" in said and "error" not in said


@pytest.mark.parametrize(
    ("answer", "meant"), [("y\n", True), ("YES\n", True), ("yep\n", False), ("\n", False), ("y", True)]
)
def test_an_answer_may_come_from_a_pipe(answer, meant, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert confirmed("Go on?") is meant


def test_without_an_answer_nothing_is_taken_for_granted(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageError, match="--disable_prompt"):
        confirmed("Go on?")


@pytest.mark.parametrize("content", [None, b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_json_is_one_line_with_the_remedy(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.json") as refused:
        read_json(path)
    assert refused.value.remedy and "Errno" not in str(refused.value)


@pytest.mark.parametrize("text", ["[wallet]\nnam = 'x'\n", "not toml", "[[wallet]]\n"])
def test_a_file_that_sets_no_flag_is_refused(tmp_path, text, capsys):
    path = tmp_path / "c.toml"
    path.write_text(text)
    assert run(app, ["--config", str(path)]) == 2
    assert "c.toml" in capsys.readouterr().err
