"""Names that may become part of a path or a URL: dataset ids and names of artifacts.

An id is `[a-z0-9][a-z0-9._-]{0,63}` without two dots in a row and without one at the end, so it is the same
on every file system and needs no escaping anywhere. Names that the store or an operating system uses for
something else are refused.
"""

from __future__ import annotations

import re
import unicodedata

from ..errors import UsageError

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_OURS = {"buyer", "owner"}
MAX_NAME_BYTES = 255
# Control, format (such as the marks that turn the direction of text round), surrogate, line, paragraph.
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_id(text: str) -> bool:
    """Whether `text` is a dataset id."""
    return (
        _ID.fullmatch(text) is not None
        and ".." not in text
        and not text.endswith(".")
        and text not in _OURS
        and text.partition(".")[0] not in _DEVICES
    )


def check_id(text: str) -> str:
    """`text`, if it is a dataset id.

    Raises:
        UsageError: it is not.
    """
    if not is_id(text):
        raise UsageError(
            f"{text[:80]!r} is no dataset id",
            remedy="Use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, without "
            "'..' or a dot at the end, and no name that a system keeps for itself, such as con or owner",
        )
    return text


def check_artifact_name(text: str) -> str:
    """`text`, if it is the name of a file in a directory: one component of at most 255 bytes of UTF-8.

    Raises:
        UsageError: it is a path, or has characters that do not print.
    """
    if text in ("", ".", "..") or "/" in text or "\\" in text:
        raise UsageError(
            f"{text[:80]!r} is no file name", remedy="Name a file in the directory itself, not a path"
        )
    if any(unicodedata.category(letter) in _UNPRINTABLE for letter in text):
        raise UsageError(
            f"file name {text[:80]!a} has a character that does not print", remedy="Rename the file"
        )
    if len(text.encode()) > MAX_NAME_BYTES:
        raise UsageError(
            f"file name {text[:40]!r}... is longer than {MAX_NAME_BYTES} bytes", remedy="Rename the file"
        )
    return text
