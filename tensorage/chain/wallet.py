"""Hotkeys from Bittensor wallet files.

A wallet is a directory, `<path>/<name>/`, with `coldkeypub.txt` and `hotkeys/<hotkey>`; the SDK owns the
format. A service needs its hotkey only: the coldkey is never opened here. Whatever is wrong with a file is
a UsageError that names the file and the btcli command that puts it right. Secrets never appear in a message
or a repr.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bittensor import CRYPTO_SR25519, Wallet
from bittensor.keyfiles import Keyfile, KeyfileError, Keypair, WrongPasswordError, resolve_key_password

from ..errors import UsageError

DEFAULT_PATH = "~/.bittensor/wallets"


@dataclass(frozen=True, slots=True)
class HotkeyPublic:
    """The public half of a hotkey."""

    ss58: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class WalletFiles:
    """Which wallet a key comes from, as commands are told it."""

    name: str
    hotkey: str
    path: Path

    @property
    def btcli_flags(self) -> str:
        """The flags of btcli."""
        return self._flags("-w", "-H", "--wallet-path")

    @property
    def flags(self) -> str:
        """The flags of our own commands."""
        return self._flags("--wallet.name", "--wallet.hotkey", "--wallet.path")

    def _flags(self, name: str, hotkey: str, path: str) -> str:
        words = [name, self.name, hotkey, self.hotkey]
        if self.path != Path(DEFAULT_PATH).expanduser():
            words += [path, str(self.path)]
        return shlex.join(words)


class Hotkey:
    """An sr25519 key that signs for a neuron.

    Attributes:
        keypair: the SDK's key; for tensorage.chain only.
        coldkey_ss58: the owner as the wallet records it, None when that is unknown.
        files: the wallet it comes from, None for a key without one.
    """

    def __init__(
        self, keypair: Any, *, coldkey_ss58: str | None = None, files: WalletFiles | None = None
    ) -> None:
        self.keypair = keypair
        self.ss58: str = keypair.ss58_address
        self.public_key: bytes = bytes(keypair.public_key)
        self.coldkey_ss58 = coldkey_ss58
        self.files = files

    @classmethod
    def from_uri(cls, uri: str) -> Hotkey:
        """A development key such as `//Alice`: everybody knows its secret.

        Raises:
            UsageError: no such derivation.
        """
        try:
            return cls(Keypair.create_from_uri(uri))
        except ValueError as error:
            raise UsageError(f"{uri!r} is no key derivation", remedy="Write it like //Alice") from error

    def sign(self, message: bytes) -> bytes:
        """The 64-byte sr25519 signature of `message`; randomised, so two of one message differ."""
        return bytes(self.keypair.sign(message))

    @property
    def public(self) -> HotkeyPublic:
        return HotkeyPublic(self.ss58, self.public_key)

    def __repr__(self) -> str:
        return f"Hotkey({self.ss58})"


def load_hotkey(name: str = "default", hotkey: str = "default", path: str | Path = DEFAULT_PATH) -> Hotkey:
    """The hotkey of a wallet, ready to sign.

    An encrypted hotkey is opened with the password that the SDK keeps in the environment, or by asking at a
    terminal.

    Raises:
        UsageError: the file is missing, unreadable, damaged, encrypted without a password, or no sr25519 key.
    """
    wallet, files = _wallet(name, hotkey, path)
    keypair = _read(wallet.hotkey_file, wallet, files.btcli_flags)
    try:
        keypair.sign(b"")
    except ValueError as error:
        raise _damaged(wallet.hotkey_file, files.btcli_flags, "it holds no secret key") from error
    return Hotkey(keypair, coldkey_ss58=_coldkey(wallet), files=files)


def load_public(
    name: str = "default", hotkey: str = "default", path: str | Path = DEFAULT_PATH
) -> HotkeyPublic:
    """The public half of a wallet's hotkey; the secret file is opened only if there is no public one.

    Raises:
        UsageError: as load_hotkey.
    """
    wallet, files = _wallet(name, hotkey, path)
    source = wallet.hotkeypub_file if wallet.hotkeypub_file.exists_on_device() else wallet.hotkey_file
    keypair = _read(source, wallet, files.btcli_flags)
    return HotkeyPublic(keypair.ss58_address, bytes(keypair.public_key))


def coldkey_address(name: str = "default", path: str | Path = DEFAULT_PATH) -> str | None:
    """The SS58 address of a wallet's coldkey, from its public file; None when that is missing or damaged.

    Raises:
        UsageError: `name` is no name of a key.
    """
    wallet, _ = _wallet(name, "default", path)
    return _coldkey(wallet)


def create_wallet(
    name: str = "default",
    hotkey: str = "default",
    path: str | Path = DEFAULT_PATH,
    *,
    coldkey_password: str | None = None,
    on_mnemonic: Callable[[str, str], None] | None = None,
) -> Hotkey:
    """The hotkey of a wallet, whose coldkey and hotkey are made first where they are missing.

    Existing keys are never touched. A new coldkey is stored unencrypted unless a password is given.

    Args:
        on_mnemonic: told ("coldkey" | "hotkey", mnemonic) of each new key; by default nobody is.

    Raises:
        UsageError: the directory cannot be written, or a file that exists cannot be used.
    """
    wallet, _ = _wallet(name, hotkey, path)

    def tell(kind: str) -> Callable[[str], None]:
        return lambda mnemonic: on_mnemonic(kind, mnemonic) if on_mnemonic else None

    try:
        if not (wallet.coldkey_file.exists_on_device() or wallet.coldkeypub_file.exists_on_device()):
            wallet.create_new_coldkey(
                use_password=coldkey_password is not None,
                coldkey_password=coldkey_password,
                suppress=True,
                on_mnemonic=tell("coldkey"),
            )
        if not wallet.hotkey_file.exists_on_device():
            wallet.create_new_hotkey(suppress=True, on_mnemonic=tell("hotkey"))
    except OSError as error:
        raise UsageError(
            f"wallet {name} cannot be written under {path}: {error.strerror or error}",
            remedy="Name a directory of your own with --wallet.path",
        ) from error
    return load_hotkey(name, hotkey, path)


def _wallet(name: str, hotkey: str, path: str | Path) -> tuple[Wallet, WalletFiles]:
    for flag, value in (("--wallet.name", name), ("--wallet.hotkey", hotkey)):
        if not value or value in (".", "..") or Path(value).name != value:
            raise UsageError(f"{flag} {value!r} is no name of a key", remedy="Give a name without slashes")
    root = Path(path).expanduser()
    return Wallet(name=name, hotkey=hotkey, path=str(root)), WalletFiles(name, hotkey, root)


def _read(file: Keyfile, wallet: Wallet, flags: str) -> Any:
    """The key in a file, of the one type that is allowed."""
    try:
        if not file.exists_on_device():
            raise _missing(file, wallet, flags)
        keypair = file.get_keypair(_password(file, flags))
    except WrongPasswordError as error:
        raise UsageError(
            f"hotkey {file.path} does not open with the password given",
            remedy=f"Give the right one, or store it open: btcli wallet regen-hotkey {flags} --overwrite",
        ) from error
    except OSError as error:
        raise UsageError(
            f"hotkey {file.path} cannot be read: {error.strerror or 'permission denied'}",
            remedy=f"Make it readable for this user: chmod u+r {shlex.quote(file.path)}",
        ) from error
    except (KeyfileError, ValueError) as error:
        raise _damaged(file, flags, "it holds no key") from error
    if keypair.crypto_type != CRYPTO_SR25519:
        raise UsageError(
            f"hotkey {file.path} is not of type sr25519",
            remedy=f"Make another one: btcli wallet new-hotkey {flags} --crypto-type sr25519",
        )
    return keypair


def _password(file: Keyfile, flags: str) -> str | None:
    if not file.is_encrypted():
        return None
    password = resolve_key_password(env_var_name=file.env_var_name(), allow_prompt=False)
    if password is None and not sys.stdin.isatty():
        raise UsageError(
            f"hotkey {file.path} is encrypted and nobody is there to ask for its password",
            remedy=f"Store it unencrypted, as btcli does: btcli wallet regen-hotkey {flags} --overwrite",
        )
    return password


def _missing(file: Keyfile, wallet: Wallet, flags: str) -> UsageError:
    owned = wallet.coldkeypub_file.exists_on_device() or wallet.coldkey_file.exists_on_device()
    command = "new-hotkey" if owned else "create"
    return UsageError(f"no hotkey at {file.path}", remedy=f"Create it with: btcli wallet {command} {flags}")


def _damaged(file: Keyfile, flags: str, why: str) -> UsageError:
    return UsageError(
        f"hotkey {file.path} is damaged: {why}",
        remedy=f"Restore it from its mnemonic: btcli wallet regen-hotkey {flags} --overwrite",
    )


def _coldkey(wallet: Wallet) -> str | None:
    """The owner's address, where the wallet has it; a miner's machine need not."""
    try:
        return str(wallet.coldkeypub.ss58_address)
    except (OSError, KeyfileError, ValueError):
        return None
