"""Which bytes of a file a request is answered with: preconditions, ranges and ETags of RFC 9110.

Pure: headers in, an `Answer` out. The rules, where the RFC leaves a choice:

- The ETag is the file's SHA-256 and therefore strong. `If-Range` counts only with that ETag: a date, a weak
  ETag or another one means that the whole file is sent.
- A unit other than `bytes` is ignored. Ranges that are malformed, too many, or overlap are refused (416): a
  file must not be sent several times over for one request. An empty file has no ranges, and is sent whole.
- Of several ranges, those beyond the end are left out; one that is left is sent as a single one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timezone
from email.utils import formatdate, parsedate_to_datetime

from .refusal import Refusal

#: Ranges that one request may ask for.
MAX_RANGES = 16

_UNIT = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SPEC = re.compile(r"(?P<first>[0-9]{1,19})-(?P<last>[0-9]{1,19})?|-(?P<suffix>[0-9]{1,19})")
_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `first` to `last` of a file, both inclusive."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1

    def content_range(self, total: int) -> str:
        """The value of its Content-Range header."""
        return f"bytes {self.first}-{self.last}/{total}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent: the status (200, 206 or 304) and the parts of the file; several are a multipart body."""

    status: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Validators:
    """What a client can name a file by: its strong ETag (with quotes) and its time (unix seconds)."""

    etag: str
    modified: int

    @property
    def last_modified(self) -> str:
        """The value of the Last-Modified header."""
        return formatdate(self.modified, usegmt=True)


def etag_of(digest: bytes) -> str:
    """The strong ETag of a file with this SHA-256."""
    return f'"{digest.hex()}"'


def answer(headers: Mapping[str, Sequence[str]], size: int, validators: Validators) -> Answer:
    """What to send of a file of `size` bytes to a GET or HEAD with these headers (lower-case names).

    Raises:
        Refusal: `precondition_failed` (412), or `range_not_satisfiable` (416) with its Content-Range.
    """
    whole = Answer(200, (Span(0, size - 1),) if size else ())
    if _is_changed(headers, validators):
        raise Refusal("precondition_failed", "the file is not the one that the request names")
    if _is_known(headers, validators):
        return Answer(304, ())
    asked = headers.get("range", ())
    if not asked or not size or not _range_applies(headers, validators):
        return whole
    if len(asked) > 1:
        raise _unsatisfiable("more than one Range header", size)
    spans = parse(asked[0], size)
    return whole if spans is None else Answer(206, spans)


def parse(value: str, size: int) -> tuple[Span, ...] | None:
    """The ranges of a Range header that a file of `size` > 0 bytes has; None where it is to be ignored.

    Raises:
        Refusal: `range_not_satisfiable`, with its Content-Range.
    """
    unit, equals, listed = value.partition("=")
    if equals and _UNIT.fullmatch(unit) and unit.lower() != "bytes":
        return None
    if not equals or unit.lower() != "bytes":
        raise _unsatisfiable("the Range header is malformed", size)
    specs = [spec for spec in (part.strip(" \t") for part in listed.split(",")) if spec]
    if not 1 <= len(specs) <= MAX_RANGES:
        raise _unsatisfiable(f"1 to {MAX_RANGES} ranges may be asked for at once, not {len(specs)}", size)
    asked = [_span(spec, size) for spec in specs]
    spans = [span for span in asked if span is not None]
    if not spans:
        raise _unsatisfiable("no range lies within the file", size)
    ordered = sorted(spans, key=lambda span: span.first)
    if any(after.first <= before.last for before, after in itertools.pairwise(ordered)):
        raise _unsatisfiable("the ranges overlap", size)
    return tuple(spans)


def _span(spec: str, size: int) -> Span | None:
    """The bytes that a spec means; None where a file of `size` has none of them."""
    found = _SPEC.fullmatch(spec)
    if found is None:
        raise _unsatisfiable(f"{spec[:40]!r} is no range", size)
    if found["suffix"] is not None:
        length = min(int(found["suffix"]), size)
        return Span(size - length, size - 1) if int(found["suffix"]) else None
    first = int(found["first"])
    last = size - 1 if found["last"] is None else int(found["last"])
    if found["last"] is not None and last < first:
        raise _unsatisfiable(f"{spec[:40]!r} ends before it begins", size)
    return Span(first, min(last, size - 1)) if first < size else None


def _unsatisfiable(message: str, size: int) -> Refusal:
    return Refusal("range_not_satisfiable", message, headers={"content-range": f"bytes */{size}"})


def _etags(values: Sequence[str]) -> set[str]:
    """The ETags of a list header; what is none is left out, and matches nothing."""
    return {found.group() for value in values for found in _ETAG.finditer(value)}


def _is_changed(headers: Mapping[str, Sequence[str]], validators: Validators) -> bool:
    """Whether If-Match, or without it If-Unmodified-Since, forbids an answer."""
    if match := headers.get("if-match"):
        return "*" not in {value.strip() for value in match} and validators.etag not in _etags(match)
    since = _time(headers.get("if-unmodified-since", ()))
    return since is not None and validators.modified > since


def _is_known(headers: Mapping[str, Sequence[str]], validators: Validators) -> bool:
    """Whether If-None-Match, or without it If-Modified-Since, says that the client has the file."""
    if match := headers.get("if-none-match"):
        known = {etag.removeprefix("W/") for etag in _etags(match)}
        return "*" in {value.strip() for value in match} or validators.etag in known
    since = _time(headers.get("if-modified-since", ()))
    return since is not None and validators.modified <= since


def _range_applies(headers: Mapping[str, Sequence[str]], validators: Validators) -> bool:
    condition = headers.get("if-range", ())
    return not condition or (len(condition) == 1 and condition[0].strip() == validators.etag)


def _time(values: Sequence[str]) -> float | None:
    """The time of a date header, in unix seconds; None where it is none, and is to be ignored."""
    if len(values) != 1:
        return None
    try:
        parsed = parsedate_to_datetime(values[0])
    except (ValueError, IndexError, OverflowError):
        return None
    return parsed.replace(tzinfo=parsed.tzinfo or timezone.utc).timestamp()
