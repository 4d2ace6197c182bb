"""The coldkey of a Bittensor wallet: the key that holds TAO, opened only by what spends it.

An encrypted key is opened with the password in BT_WALLET_PASSWORD, in the file that BT_WALLET_PASSWORD_FILE
names, in the variable that the SDK keeps one in for the key's path, or by asking at a terminal. Neither
key nor password appears in a message or a repr.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from bittensor import CRYPTO_SR25519, Wallet
from bittensor.keyfiles import Keyfile, KeyfileError, Keypair, WrongPasswordError, resolve_key_password

from ..errors import UsageError
from .wallet import DEFAULT_PATH

_PASSWORD = "BT_WALLET_PASSWORD"  # noqa: S105 - the name of a variable
_PASSWORD_FILE = "BT_WALLET_PASSWORD_FILE"  # noqa: S105


class Coldkey:
    """An sr25519 key that holds TAO.

    Attributes:
        keypair: the SDK's key; for tensorage.chain only.
    """

    def __init__(self, keypair: Any) -> None:
        self.keypair = keypair
        self.ss58: str = keypair.ss58_address

    @classmethod
    def from_uri(cls, uri: str) -> Coldkey:
        """A development key such as `//Alice`: everybody knows its secret.

        Raises:
            UsageError: no such derivation.
        """
        try:
            return cls(Keypair.create_from_uri(uri))
        except ValueError as error:
            raise UsageError(f"{uri!r} is no key derivation", remedy="Write it like //Alice") from error

    def __repr__(self) -> str:
        return f"Coldkey({self.ss58})"


def load_coldkey(name: str = "default", path: str | Path = DEFAULT_PATH) -> Coldkey:
    """The coldkey of a wallet, ready to sign.

    Raises:
        UsageError: the file is missing, unreadable, damaged, does not open, or is no sr25519 key.
    """
    if not name or name in (".", "..") or Path(name).name != name:
        raise UsageError(f"--wallet.name {name!r} is no name of a key", remedy="Give a name without slashes")
    root = Path(path).expanduser()
    file: Keyfile = Wallet(name=name, path=str(root)).coldkey_file
    flags = shlex.join(["-w", name, "--wallet-path", str(root)])
    try:
        if not file.exists_on_device():
            raise UsageError(
                f"no coldkey at {file.path}", remedy=f"Create it with: btcli wallet new-coldkey {flags}"
            )
        keypair = file.get_keypair(_password(file) if file.is_encrypted() else None)
        keypair.sign(b"")
    except WrongPasswordError as error:
        raise UsageError(
            f"coldkey {file.path} does not open with the password given", remedy="Give the right one"
        ) from error
    except OSError as error:
        raise UsageError(
            f"coldkey {file.path} cannot be read: {error.strerror or 'permission denied'}",
            remedy=f"Make it readable for this user: chmod u+r {shlex.quote(file.path)}",
        ) from error
    except (KeyfileError, ValueError) as error:
        raise UsageError(
            f"coldkey {file.path} holds no secret key",
            remedy=f"Restore it from its mnemonic: btcli wallet regen-coldkey {flags} --overwrite",
        ) from error
    if keypair.crypto_type != CRYPTO_SR25519:
        raise UsageError(
            f"coldkey {file.path} is not of type sr25519", remedy="Name a wallet whose coldkey is"
        )
    return Coldkey(keypair)


def _password(file: Keyfile) -> str | None:
    """The password for an encrypted key; None where the SDK is to ask for it."""
    if given := os.environ.get(_PASSWORD):
        return given
    if source := os.environ.get(_PASSWORD_FILE):
        try:
            lines = Path(source).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"the password file {source} cannot be read", remedy=f"Set {_PASSWORD_FILE} to one that can"
            ) from error
        if lines and lines[0]:
            return lines[0]
        raise UsageError(
            f"the password file {source} is empty", remedy="Write the password on its first line"
        )
    password = resolve_key_password(env_var_name=file.env_var_name(), allow_prompt=False)
    if password is None and not sys.stdin.isatty():
        raise UsageError(
            f"coldkey {file.path} is encrypted and nobody is there to ask for its password",
            remedy=f"Set {_PASSWORD} or {_PASSWORD_FILE}",
        )
    return password
