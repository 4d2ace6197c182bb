"""`tensorage devnet demo`, beside the other commands of `tensorage devnet`."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ..chain.devnet.cli import devnet_app
from ..errors import TensorageError, UsageError
from .cast import VALIDATORS
from .display import Display
from .processes import Processes
from .stage import Stage
from .table import document

DEFAULT_SECONDS = 170.0

app = devnet_app


class DemoFailedError(TensorageError):
    """The subnet did not do what it is for."""


@app.command(short_help="Run the whole subnet on this machine.")
def demo(
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Leave everything up until Ctrl-C.", show_default=False)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the final table as JSON, and nothing else, on stdout.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            help="Where to put everything.",
            show_default="a new temporary one, from which the sectors are removed at the end",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="Give up after this time.")
    ] = DEFAULT_SECONDS,
) -> None:
    """Run the whole subnet on this machine: a chain, two validators, three honest miners and two cheats.

    Exits with 0 only if the honest are paid for what they hold, and the cheats nothing.

    Example: tensorage devnet demo --json
    """
    from .play import play  # noqa: PLC0415 - the other commands of `tensorage devnet` do not need it

    stage = Stage(_directory(directory))
    with ExitStack() as stack:
        stack.enter_context(_stops_on_signals())
        display = stack.enter_context(Display(quiet=as_json))
        if directory is None:
            stack.callback(stage.remove_sectors)
        processes = stack.enter_context(Processes(stage.logs))
        outcome = asyncio.run(play(stage, processes, display, seconds))
        display.end(outcome.rows, block=outcome.block, judgement=outcome.judgement)
        _tell_places(stage, display)
        if as_json:
            typer.echo(json.dumps(document(outcome.rows, outcome.judgement, stage.places()), indent=1))
        if keep_running:
            _wait(stage, processes, display)
    if not outcome.judgement.ok:
        raise DemoFailedError(outcome.judgement.reason)


def _directory(wanted: Path | None) -> Path:
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="tensorage-demo-"))
    path = wanted.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        taken = any(path.iterdir())
    except OSError as error:
        raise UsageError(
            f"{path} cannot be used: {error.strerror}", remedy="Name another --directory"
        ) from error
    if taken:
        raise UsageError(f"{path} is not empty", remedy="Name an empty or a new --directory")
    return path


@contextmanager
def _stops_on_signals() -> Iterator[None]:
    """End on SIGTERM and SIGHUP as on Ctrl-C, so that the processes are stopped then too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_places(stage: Stage, display: Display) -> None:
    for what, where in stage.places().items():
        display.say(f"{what}: {where if isinstance(where, str) else ' '.join(where)}")
    ledger = stage.ledger(VALIDATORS[0])
    if ledger is not None:
        tensorage = _program()
        display.say(
            f"check the verdicts: {tensorage} receipts export {ledger} | {tensorage} receipts verify -"
        )


def _program() -> str:
    """What to type for this command where `tensorage` may not be on the PATH, as after `make demo`."""
    if shutil.which("tensorage"):
        return "tensorage"
    beside = Path(sys.executable).parent / "tensorage"
    return str(beside) if beside.is_file() else f"{sys.executable} -m tensorage"


def _wait(stage: Stage, processes: Processes, display: Display) -> None:
    """Stay until Ctrl-C."""
    display.say("everything goes on running; Ctrl-C ends it. Look at it with:")
    display.say(f"{_program()} devnet status --path {stage.devnet}")
    try:
        while True:
            processes.check()
            time.sleep(1)
    except KeyboardInterrupt:
        display.say("stopping")
