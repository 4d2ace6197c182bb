"""JSON from anybody, read strictly: capped first, and without what two readers read as two things.

UTF-8, no name twice in an object, no fraction, NaN or infinity, no integer of more than 20 digits. A
document that would take many times its size in memory is refused before it does.
"""

from __future__ import annotations

import json
from typing import Any

from .errors import LogError

_MAX_DIGITS = 20
#: An object takes up to 240 bytes of memory, a string 50: one for each so many letters, and some to spare for
#: names of files. The smallest record, a file of a manifest, has 100 letters, a bracket and three commas.
_SPARE = 2048
_BRACKET_LETTERS = 48
_COMMA_LETTERS = 12


def strict_json(raw: bytes | str, what: str, limit: int) -> Any:
    """The JSON value in at most `limit` bytes of UTF-8 (or letters), read strictly.

    Raises:
        LogError: too_large or malformed.
    """
    if len(raw) > limit:
        raise LogError("too_large", f"{what} has {len(raw)} bytes, at most {limit} are read")
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        brackets, commas = text.count("{") + text.count("["), text.count(",")
        if brackets > _SPARE + len(text) // _BRACKET_LETTERS or commas > _SPARE + len(text) // _COMMA_LETTERS:
            raise LogError("too_large", f"{what} would take many times its size in memory")
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_fraction,
        )
    except (ValueError, RecursionError) as error:
        raise LogError("malformed", f"{what} is not JSON as it should be: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has one name twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _fraction(text: str) -> float:
    raise ValueError(f"{text[:40]} is no integer")
