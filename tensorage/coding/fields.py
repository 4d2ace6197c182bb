"""Values out of JSON that somebody else may have written: each of its type, within its bounds, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from ..encoding import from_hex
from ..errors import ProofError

#: Objects and lists, each of which takes some 64 bytes of memory: as many as a name may have brackets, and
#: one for each so many bytes. The smallest stripe has 36 bytes and two of them.
_BRACKETS = 2048
_BRACKET_BYTES = 12
_HOTKEY = re.compile(r"[1-9A-HJ-NP-Za-km-z]{48}")


class ManifestError(ProofError):
    """Bytes that are no manifest or link, or not one of this key."""


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one spelling of a JSON object: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def read_canonical(data: bytes, fields: set[str], most: int) -> dict[str, Any]:
    """The JSON object of at most `most` bytes with exactly these fields, in the one spelling.

    Raises:
        ManifestError: it is anything else.
    """
    if len(data) > most:
        raise ManifestError(f"a manifest of {len(data)} bytes, at most {most} are read")
    if data.count(b"[") + data.count(b"{") > _BRACKETS + len(data) // _BRACKET_BYTES:
        raise ManifestError("the bytes are no manifest: they are little but brackets")
    try:
        value = json.loads(data.decode("ascii"))
        one_spelling = isinstance(value, dict) and canonical(value) == data
    except (ValueError, RecursionError) as error:
        raise ManifestError("the bytes are no manifest, or it was altered") from error
    if not one_spelling:
        raise ManifestError("the manifest is not spelled as it was written")
    return read_object(value, fields, "the file")


def read_object(value: object, fields: set[str], what: str) -> dict[str, Any]:
    """`value`, an object with exactly these fields; `what` names it in the message."""
    if not isinstance(value, dict) or set(value) != fields:
        raise ManifestError(f"{what} has not exactly the fields {', '.join(sorted(fields))}")
    return value


def read_hex(fields: Mapping[str, Any], name: str, size: int) -> bytes:
    """Exactly `size` bytes from lower-case hex."""
    try:
        return from_hex(read_text(fields, name), size, name)
    except ValueError as error:
        raise ManifestError(str(error)) from error


def read_text(fields: Mapping[str, Any], name: str) -> str:
    """A text."""
    value = fields[name]
    if not isinstance(value, str):
        raise ManifestError(f"{name} is no text")
    return value


def read_number(fields: Mapping[str, Any], name: str, most: int = (1 << 63) - 1) -> int:
    """A whole number from 0 to `most`."""
    value = fields[name]
    if type(value) is not int or not 0 <= value <= most:
        raise ManifestError(f"{name} is no number from 0 to {most}")
    return value


def read_list(fields: Mapping[str, Any], name: str, most: int) -> list[Any]:
    """A list of at most `most`."""
    value = fields[name]
    if not isinstance(value, list) or len(value) > most:
        raise ManifestError(f"{name} is no list of at most {most}")
    return value


def read_hotkey(fields: Mapping[str, Any]) -> str:
    """Text that may be an SS58 address; its checksum is not looked at."""
    value = read_text(fields, "hotkey")
    if not _HOTKEY.fullmatch(value):
        raise ManifestError(f"{value[:60]!r} is no hotkey")
    return value


def read_ip(fields: Mapping[str, Any]) -> str:
    """An IP address, as it is usually spelled."""
    value = read_text(fields, "ip")
    try:
        address = str(ip_address(value))
    except ValueError as error:
        raise ManifestError(f"{value[:60]!r} is no IP address") from error
    return address


def read_port(fields: Mapping[str, Any]) -> int:
    """A port, 1 to 65535."""
    value = read_number(fields, "port", 0xFFFF)
    if not value:
        raise ManifestError("there is no port 0")
    return value
