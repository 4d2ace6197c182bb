"""Flags: spellings, precedence, and errors of one line."""

import pytest
import typer

from tensorage.config import Config, Netuid, Network, WalletName, netuid_of, run
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


@pytest.mark.parametrize("text", ["[wallet]\nnam = 'x'\n", "not toml", "[[wallet]]\n"])
def test_a_file_that_sets_no_flag_is_refused(tmp_path, text, capsys):
    path = tmp_path / "c.toml"
    path.write_text(text)
    assert run(app, ["--config", str(path)]) == 2
    assert "c.toml" in capsys.readouterr().err
