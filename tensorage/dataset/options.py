"""What the owner's commands have in common: options, the store that they open, progress and times."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..client.meter import Meter
from ..config import seconds_of
from ..errors import UsageError
from .home import DEFAULT_HOME, HOME_VARIABLE
from .names import check_id
from .schema import STORE_NAME
from .signing import KEY_NAME, KEY_VARIABLE, SignerChoice
from .store import Store

DatasetHome = Annotated[
    Path,
    typer.Option("--home", envvar=HOME_VARIABLE, help="Where your datasets are kept; only you may read it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.", show_default=False)]
DatasetId = Annotated[str, typer.Argument(metavar="ID", help="The dataset.")]

__all__ = [
    "DEFAULT_HOME",
    "AsJson",
    "DatasetHome",
    "DatasetId",
    "lifetime",
    "meter",
    "open_store",
    "signer_choice",
]


def open_store(home: Path, *, make: bool = False, id: str | None = None) -> Store:
    """The store in a directory.

    Args:
        make: make it where it is missing.
        id: the dataset that is asked for.

    Raises:
        UsageError: there is none, it cannot be used, or the id is none.
    """
    if id is not None:
        check_id(id)
    if not make and not (home.expanduser() / STORE_NAME).exists():
        what = f'dataset "{id}" not found' if id else "there are no datasets"
        raise UsageError(
            f"{what} — create it with 'dataset from'", remedy=f"Or name another --home than {home}"
        )
    return Store(home, waiting=lambda line: typer.echo(line, err=True))


def signer_choice(
    kind: str | None, key: Path | None, home: Path, wallet: tuple[str, str, Path]
) -> SignerChoice:
    """Which key the options mean. A key file without --signer means secp256k1.

    Raises:
        UsageError: there is no such kind of signer, or a key file is named for a hotkey.
    """
    kind = kind or ("hotkey" if key is None else "secp256k1")
    if kind not in ("hotkey", "secp256k1"):
        raise UsageError(f"there is no signer {kind!r}", remedy="Take --signer hotkey or secp256k1")
    if kind == "hotkey" and key is not None:
        raise UsageError(
            "--key is a secp256k1 key", remedy=f"Leave it and {KEY_VARIABLE} out, or take --signer secp256k1"
        )
    return SignerChoice(kind, wallet, key or home.expanduser() / KEY_NAME)


def meter(verb: str, total: int | None, *, quiet: bool) -> Meter:
    """A progress bar on stderr, where that is a terminal."""
    return Meter(verb, total, Console(stderr=True, highlight=False, soft_wrap=True), quiet=quiet)


def lifetime(text: str | None, now: int) -> int | None:
    """The unix second at which `12h`, `30d`, `4w` or `1y` from now is over; None for ever.

    Raises:
        UsageError: it is no duration.
    """
    return None if text is None else now + seconds_of(text)


def day(moment: int | None) -> str:
    """A moment as people write it, in UTC; empty for None."""
    return "" if moment is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))
