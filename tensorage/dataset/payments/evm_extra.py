"""The x402 package and what it brings, imported when it is first needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType
from urllib.parse import urlsplit

from ...errors import UsageError

_NETWORK = re.compile(r"eip155:([1-9][0-9]{0,17})", re.ASCII)
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """An EIP-3009 token: its address, and the name and version of its EIP-712 domain, which differ by
    chain."""

    address: str
    name: str
    version: str


def missing(error: ImportError) -> UsageError:
    """The error of a machine without the extra."""
    return UsageError(
        f"paying on an EVM chain needs the x402 package ({error.name or error})",
        remedy='Install it with: pip install "tensorage[evm]"',
    )


def chain_id(network: str) -> int:
    """The number of an EVM chain, from its CAIP-2 id.

    Raises:
        UsageError: it is no such id.
    """
    found = _NETWORK.fullmatch(network)
    if found is None:
        raise UsageError(f"{network!r} is no EVM network", remedy="Write it like eip155:8453")
    return int(found[1])


def usdc(network: str) -> Token:
    """The USDC of a network, as the x402 package knows it.

    Raises:
        UsageError: it knows none there, or is not installed.
    """
    chain_id(network)
    try:
        from x402.mechanisms.evm.default_assets import DEFAULT_ASSETS  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing(error) from error
    for asset in DEFAULT_ASSETS.get(network, []):
        if asset["symbol"] == "USDC" and asset.get("asset_transfer_method", "eip3009") == "eip3009":
            return Token(asset["asset"], asset["name"], asset["version"])
    raise UsageError(f"no USDC is known on {network}", remedy="Name the token, or another network")


def eip712() -> ModuleType:
    """The package's EIP-712 hashing.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        from x402.mechanisms.evm import eip712 as module  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing(error) from error
    return module


def check_url(url: str, what: str) -> str:
    """The URL of a service that is told of payments: https, or http on this machine.

    Raises:
        UsageError: another one.
    """
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if (
        parts.hostname is None
        or parts.scheme not in ("https", "http")
        or (parts.scheme == "http" and not local)
    ):
        raise UsageError(f"{what} {url[:120]!r} is no https URL", remedy="Give one that begins with https://")
    return url.rstrip("/")
