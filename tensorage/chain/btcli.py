"""The `btcli` program: run it, read its answer.

Registration goes through the program rather than the SDK, so that an operator sees and can repeat by hand
exactly what was done. With `--json` btcli 11.3 answers on one of two channels:

    done, or refused by the chain   JSON on stdout, exit code 0 or 1: {"success", "message", "error", "data"}
    refused by btcli itself         JSON on stderr, nothing on stdout, exit code 1: {"error", "help"} or,
                                    for an error of the chain found beforehand, {"message", "code", ...}
    wrong arguments                 text on stderr, exit code 2

Anything else, such as a traceback, is a failure too: its last line is the message. An answer is never
guessed from the exit code alone. The program runs without a shell and without a terminal, so it cannot ask.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ChainError, UsageError

READ_TIMEOUT = 120.0  # seconds
WRITE_TIMEOUT = 600.0  # seconds; a shielded transaction waits for its inclusion, a new subnet for a place
ALREADY_EXISTS = "already_exists"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"[╭╮╰╯─│]+")


class BtcliError(ChainError):
    """btcli, or the chain through it, refused.

    Args:
        code: btcli's word for the error, such as `already_exists`; empty where it has none.
    """

    def __init__(self, message: str, *, code: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


def find(override: str | None = None) -> list[str]:
    """The words that start btcli: `override` split as a shell would, else the program of this environment.

    Raises:
        UsageError: there is no such program.
    """
    if override:
        try:
            words = shlex.split(override)
        except ValueError as error:
            raise UsageError(
                f"--btcli {override!r} is no command: {error}", remedy="Close its quotes"
            ) from error
        if words:
            return words
    program = Path(sys.executable).parent / "btcli"
    if not program.is_file():
        raise UsageError(
            f"no btcli at {program}",
            remedy="Install it with: pip install 'bittensor>=11.3,<12', or name it with --btcli",
        )
    return [str(program)]


def read_answer(exit_code: int, stdout: str, stderr: str) -> Any:
    """What btcli found or did, from its exit code and its two channels.

    Returns:
        the JSON value on stdout.

    Raises:
        BtcliError: it refused, or its answer cannot be read.
    """
    said, answer = _json(stdout)
    if said and isinstance(answer, dict) and answer.get("success") is False:
        error = answer.get("error")
        raise _refusal(error if isinstance(error, dict) else {}, str(answer.get("message") or ""))
    if exit_code == 0:
        if not said:
            raise BtcliError(
                f"btcli gave no JSON but {_last_line(stdout) or 'nothing'!r}",
                remedy="Look on chain whether it was done; tensorage needs btcli 11.3",
            )
        return answer
    said, complaint = _json(stderr)
    if said and isinstance(complaint, dict):
        raise _refusal(complaint, "")
    message = _last_line(stderr) or _last_line(stdout) or "it said nothing"
    if exit_code == 2:
        raise BtcliError(
            f"btcli does not take these arguments: {message}", remedy="tensorage needs btcli 11.3"
        )
    raise BtcliError(f"btcli failed with exit code {exit_code}: {message}")


def _refusal(error: dict[str, Any], otherwise: str) -> BtcliError:
    message = str(error.get("message") or error.get("error") or otherwise or "btcli gave no reason")
    remedy = str(error.get("remediation") or error.get("help") or error.get("note") or "")
    remedy = _line(remedy)
    return BtcliError(
        _line(message), code=str(error.get("code") or ""), remedy=remedy[:1].upper() + remedy[1:]
    )


def _line(text: str) -> str:
    """`text` as one line without a full stop, which the sentence around it supplies."""
    return " ".join(text.split()).removesuffix(".")


def _json(text: str) -> tuple[bool, Any]:
    """Whether `text` is or ends in one JSON value, and the value; warnings and log lines may come before."""
    plain = _ANSI.sub("", text).strip()
    if not plain:
        return False, None
    for start in [0, *(found.start() for found in re.finditer(r"^[{\[]", plain, re.MULTILINE))]:
        try:
            return True, json.loads(plain[start:])
        except ValueError:
            continue
    return False, None


def _last_line(text: str) -> str:
    lines = [_FRAME.sub(" ", line).strip() for line in _ANSI.sub("", text).splitlines()]
    return next((line for line in reversed(lines) if line), "")


@dataclass(frozen=True)
class Btcli:
    """btcli for one network and one wallet.

    Args:
        program: the words that start it, see `find`.
        network: what `-n` takes: a network's name or a chain endpoint.
        name, hotkey, path: the wallet, as the SDK names it.
        password_file: holds the coldkey's password, for a coldkey that is encrypted.
    """

    program: Sequence[str]
    network: str
    name: str
    hotkey: str
    path: str
    password_file: Path | None = None

    @property
    def key(self) -> str:
        """The hotkey as btcli's `--hotkey` names it."""
        return f"{self.name}/{self.hotkey}"

    def reading(self, *arguments: str) -> list[str]:
        """The command line of a read."""
        where = ["-n", self.network, "--wallet-path", self.path, "-w", self.name, "-H", self.hotkey]
        return [*self.program, *arguments, *where, "--json"]

    def writing(self, *arguments: str) -> list[str]:
        """The command line of a transaction; it does not ask, since the caller has."""
        password = [] if self.password_file is None else ["--wallet-password-file", str(self.password_file)]
        return [*self.reading(*arguments), *password, "--yes"]

    def read(self, *arguments: str) -> Any:
        """The answer to a read.

        Raises:
            BtcliError: btcli or the chain refused. Its exit code is 2: what was named cannot be read.
            UsageError: the program cannot be started.
        """
        try:
            return self._run(self.reading(*arguments), READ_TIMEOUT)
        except BtcliError as error:
            error.exit_code = UsageError.exit_code
            raise

    def write(self, *arguments: str) -> dict[str, Any]:
        """The receipt of a transaction.

        Raises:
            BtcliError: btcli or the chain refused, or the transaction's fate is unknown.
            UsageError: the program cannot be started.
        """
        answer = self._run(self.writing(*arguments), WRITE_TIMEOUT)
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise BtcliError(
                "btcli gave no receipt",
                remedy="Look on chain whether it was done; tensorage needs btcli 11.3",
            )
        return answer

    @staticmethod
    def _run(command: list[str], timeout: float) -> Any:
        environment = {
            key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "CLICOLOR_FORCE")
        }
        environment |= {"NO_COLOR": "1", "TERM": "dumb"}
        try:
            done = subprocess.run(  # noqa: S603 - words, no shell
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
                env=environment,
            )
        except OSError as error:
            raise UsageError(
                f"{command[0]} cannot be run: {error.strerror}", remedy="Name btcli with --btcli"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise BtcliError(
                f"btcli did not answer within {timeout:.0f} s",
                remedy="Look on chain whether it was done before you try again",
            ) from error
        return read_answer(done.returncode, done.stdout, done.stderr)
