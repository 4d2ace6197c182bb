"""Which key an owner signs with, from the options of a command.

    --signer hotkey       the hotkey of a Bittensor wallet (the default), --wallet.name and the rest
    --signer secp256k1    --key FILE, one line of 64 hex digits, with or without 0x

A key file is for its owner alone: one that others may read is refused. A key is made only when it is asked
for, and never over another.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..chain.wallet import load_hotkey
from ..errors import UsageError
from .artifacts import open_regular
from .files import Disk, cannot_write, make_directories, unfinished_name, write_atomically
from .identity import EthSigner, HotkeySigner, Signer

SignerKind = Literal["hotkey", "secp256k1"]
KEY_NAME = "owner.key"
KEY_VARIABLE = "TENSORAGE_DATASET_KEY"
_MAX_KEY_FILE = 4096

SignerOption = Annotated[
    str | None,
    typer.Option(
        "--signer",
        metavar="hotkey|secp256k1",
        help="The kind of key that signs.",
        show_default="hotkey; secp256k1 with --key",
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        envvar=KEY_VARIABLE,
        help="File with the secp256k1 key, for --signer secp256k1.",
        show_default="owner.key in the home",
    ),
]


@dataclass(frozen=True, slots=True)
class SignerChoice:
    """Which key is meant: a kind, a wallet (name, hotkey, path), a key file."""

    kind: str
    wallet: tuple[str, str, Path]
    key: Path


def load_signer(choice: SignerChoice, *, make: bool = False) -> Signer:
    """The key that is meant, ready to sign.

    Args:
        make: make a secp256k1 key where its file is missing.

    Raises:
        UsageError: there is no such kind, or the key is missing, damaged, or readable for others.
    """
    if choice.kind == "hotkey":
        return HotkeySigner(load_hotkey(*choice.wallet))
    if choice.kind != "secp256k1":
        raise UsageError(f"there is no signer {choice.kind!r}", remedy="Take --signer hotkey or secp256k1")
    path = choice.key.expanduser()
    if make and not path.exists():
        make_key(path, os.urandom)
    return read_key(path)


def read_key(path: Path) -> EthSigner:
    """The secp256k1 key in a file.

    Raises:
        UsageError: it is missing, no key, or others may read it. What it holds is never part of the message.
    """
    fd, found = open_regular(path.resolve())  # keys are often mounted as links
    try:
        with open(fd, "rb") as file:  # noqa: PTH123 - the descriptor that was checked
            raw = file.read(_MAX_KEY_FILE)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", remedy="Look at its disk") from error
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in (0, os.geteuid()):
        raise UsageError(f"{path} can be read by others", remedy=f"chmod 600 {path}, and think of a new key")
    try:
        text = raw.decode("ascii").strip()
        return EthSigner(bytes.fromhex(text.removeprefix("0x")))
    except ValueError:
        raise UsageError(
            f"{path} holds no secp256k1 key", remedy="It should be one line of 64 hex digits"
        ) from None


def make_key(path: Path, rng: Callable[[int], bytes]) -> None:
    """Make a secp256k1 key and its file, mode 0600; a file that is there, even since just now, stays.

    Raises:
        StorageError: it cannot be written.
    """
    secret = rng(32)
    EthSigner(secret)  # of 2^128 numbers or so, one is no key
    disk, unfinished = Disk(), unfinished_name(path)
    make_directories(disk, path.parent)
    write_atomically(disk, unfinished, secret.hex().encode() + b"\n")
    try:
        os.link(unfinished, path)  # unlike a rename, never in place of another
    except FileExistsError:
        return
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        disk.unlink(unfinished)
        disk.fsync_dir(path.parent)
