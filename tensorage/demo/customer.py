"""A client of a `Network`: runs the commands that users run, as processes, and sees how they fare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TensorageError
from .network import Network

_POLL_SECONDS = 0.02


class CommandFailedError(TensorageError):
    """A command ended with another exit code than 0."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        seconds: from its start, interpreter and all, to its end.
        peak_bytes: the most memory that it had resident (Linux; 0 elsewhere).
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int

    def json(self) -> Any:
        """What it printed.

        Raises:
            CommandFailedError: it failed.
        """
        if self.code:
            last = (self.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise CommandFailedError(f"the command ended with exit code {self.code}: {last}")
        return json.loads(self.stdout)


class Customer:
    """Somebody with an account of a validator of the network.

    Args:
        home: the client's directory; its name is the account's too.
        quota: bytes of shards that the account may keep.
        validator: whose gateway to use; the first one by default.
    """

    def __init__(
        self, network: Network, home: Path, *, quota: str = "1TB", validator: str | None = None
    ) -> None:
        self.validator = validator or network.validators[0]
        self.home = home
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "TENSORAGE_HOME": str(home)}
        self.gateway = network.endpoint(self.validator).url
        create = ["gateway", "keys", "create", home.name, f"--quota={quota}", "--json"]
        made = self.run(*create, *network.stage.flags(self.validator)).json()
        self.api_key: str = made["key"]
        self._environment |= {"TENSORAGE_API_KEY": self.api_key, "TENSORAGE_GATEWAY": self.gateway}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start `tensorage <arguments>`; its output is text from pipes, unless `options` say otherwise."""
        return subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            [sys.executable, "-m", "tensorage", *arguments],
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "env": self._environment,
                "text": True,
                **options,
            },
        )

    def run(self, *arguments: str, seconds: float = 600) -> Outcome:
        """Run `tensorage <arguments>` to its end; killed, and an error, after `seconds`."""
        began = time.perf_counter()
        with self.start(*arguments) as process:
            peak = 0
            try:
                while True:
                    try:
                        stdout, stderr = process.communicate(timeout=_POLL_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        peak = max(peak, peak_bytes(process.pid))
                    if time.perf_counter() - began > seconds:
                        raise CommandFailedError(f"{arguments[0]} took more than {seconds:g} s")
            finally:
                process.kill()
        return Outcome(process.returncode, stdout, stderr, time.perf_counter() - began, peak)

    # Files

    def put(self, path: Path, name: str, *flags: str, seconds: float = 600) -> Outcome:
        """`tensorage put`."""
        return self.run("put", str(path), f"--name={name}", "--json", *flags, seconds=seconds)

    def get(self, name: str, path: Path, *flags: str, seconds: float = 600) -> Outcome:
        """`tensorage get`."""
        return self.run("get", name, "-o", str(path), "--json", *flags, seconds=seconds)


def peak_bytes(pid: int) -> int:
    """The most bytes that a process has had resident since it became what it is; 0 where that is not told.

    Not what getrusage says of a child: that begins with what its parent had.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 if "VmHWM:" in status else 0
