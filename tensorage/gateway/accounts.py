"""API keys, and what an operator writes about accounts.

    tsk1_<SS58 of the validator's hotkey>_<seed, 64 lower-case hex digits>

The seed is that of an Ed25519 key that signs every request (`tensorage.keyauth`) and is never sent. A gateway
keeps the public key only, so its database is no list of keys. The address in front says whom the key is for:
a client refuses to use it with another.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

from ..chain.address import public_key
from ..errors import UsageError
from ..keyauth import SEED_SIZE, SigningKey

_PREFIX = "tsk1"
_KEY = re.compile(rf"{_PREFIX}_([1-9A-Za-z]{{48}})_([0-9a-f]{{{2 * SEED_SIZE}}})")
_KEY_LENGTH = len(_PREFIX) + 1 + 48 + 1 + 2 * SEED_SIZE
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_QUOTA = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGTP]?i?B)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_MOST_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key and the validator's hotkey (SS58) that it is for. Its repr does not show the seed."""

    validator: str
    key: SigningKey = field(repr=False)

    @classmethod
    def new(cls, validator: str) -> ApiKey:
        """A fresh key for the gateway of that validator."""
        return cls(validator, SigningKey(secrets.token_bytes(SEED_SIZE)))

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        """The key that a text stands for.

        Raises:
            UsageError: it stands for none. The message does not repeat it.
        """
        found = _KEY.fullmatch(text.strip())
        if found is None:
            raise _no_key()
        try:
            public_key(found[1])
        except ValueError as error:
            raise _no_key() from error
        return cls(found[1], SigningKey(bytes.fromhex(found[2])))

    def text(self) -> str:
        """The key as it is given to its owner: whoever has it is the account."""
        return f"{_PREFIX}_{self.validator}_{self.key.seed.hex()}"


def account_name(text: str) -> str:
    """A name for an account.

    Raises:
        UsageError: it has not 1 to 64 letters, digits, dots, dashes, underscores and at-signs.
    """
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"{text[:80]!r} is no name for an account",
            remedy="Use 1 to 64 letters, digits and . _ @ -, a letter or digit first",
        )
    return text


def parse_quota(text: str) -> int:
    """Bytes: "10GB" (10^9 each), "1TiB" (2^40 each), "500 MB", "4096B".

    Raises:
        UsageError: no such amount, or over 2^60 bytes.
    """
    found = _QUOTA.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no amount of bytes", remedy="Write it like 10GB, 500MB or 1TiB")
    unit = found[2].lower().removesuffix("b")
    amount = float(found[1]) * (1024 if unit.endswith("i") else 1000) ** _POWERS[unit.removesuffix("i")]
    if amount > _MOST_BYTES:
        raise UsageError(f"{text} is over {_MOST_BYTES} bytes", remedy="Give a smaller quota")
    return int(amount)


def _no_key() -> UsageError:
    return UsageError(
        f"that is no API key, which begins with {_PREFIX}_ and has {_KEY_LENGTH} characters",
        remedy="Copy it whole, as the operator gave it to you",
    )
