"""The JSON of x402 version 2, read strictly, and the headers that carry it.

What comes in is capped at 16 KiB and at 12 levels, must be UTF-8 JSON without a name twice, without NaN and
without unknown names, and every field has one type and one spelling: an amount is a string of decimal
    digits. The
three open objects (`resource`, `extra`, `extensions`) and a scheme's `payload` are kept as they came, for who
knows what they mean. A fault is MalformedPayment, whatever the bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from .errors import MalformedPayment

X402_VERSION = 2
SCHEME = "exact"
MAX_BYTES = 16 << 10
MAX_DEPTH = 12
MAX_ACCEPTS = 16
#: The request headers that may carry a payment, those of answers that carry its receipt, and the challenge's.
PAYMENT_HEADERS = ("payment-signature", "x-payment")
RECEIPT_HEADERS = ("PAYMENT-RESPONSE", "X-PAYMENT-RESPONSE")
CHALLENGE_HEADER = "PAYMENT-REQUIRED"

Text = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]
Amount = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,38}$")]
M = TypeVar("M", bound="_Model")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Requirement(_Model):
    """One way to pay. `amount` is in the smallest unit of the asset."""

    scheme: Text
    network: Text
    amount: Amount
    asset: Text
    payTo: Text
    maxTimeoutSeconds: Annotated[int, Field(ge=1, le=86_400)]
    extra: dict[str, Any] = {}

    @property
    def atomic(self) -> int:
        """The amount as a number."""
        return int(self.amount)


class Challenge(_Model):
    """What a 402 says: {x402Version, error, resource, accepts, extensions}."""

    x402Version: Literal[2]
    error: Annotated[str, StringConstraints(max_length=1024)] | None = None
    message: Annotated[str, StringConstraints(max_length=1024)] | None = None
    resource: dict[str, Any] | None = None
    accepts: Annotated[list[Requirement], Field(min_length=1, max_length=MAX_ACCEPTS)]
    extensions: dict[str, Any] | None = None


class Payment(_Model):
    """A payment: {x402Version, accepted, payload, resource, extensions}; `payload` is the scheme's own."""

    x402Version: Literal[2]
    accepted: Requirement
    payload: dict[str, Any]
    resource: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None


def read_challenge(raw: bytes) -> Challenge:
    """The challenge in the body of a 402.

    Raises:
        MalformedPayment: it is none.
    """
    return _read(Challenge, raw, "the payment challenge")


def read_payment(header: str) -> Payment:
    """The payment in a request's header: base64 of its JSON.

    Raises:
        MalformedPayment: it is none.
    """
    return _read(Payment, _unbase64(header, "the payment header"), "the payment")


def read_receipt(header: str) -> dict[str, Any]:
    """What an answer's header says of the settlement: nothing that may be believed without looking.

    Raises:
        MalformedPayment: it is no base64 of a JSON object.
    """
    return _json(_unbase64(header, "the payment receipt"), "the payment receipt")


def encode_header(document: Mapping[str, Any]) -> str:
    """A document as the value of a header: base64 of compact JSON."""
    return base64.b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()


def _unbase64(text: str, what: str) -> bytes:
    if len(text) > MAX_BYTES:
        raise MalformedPayment(f"{what} has {len(text)} bytes, at most {MAX_BYTES} are taken")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise MalformedPayment(f"{what} is not base64: {error}") from error


def _read(model: type[M], raw: bytes, what: str) -> M:
    document = _json(raw, what)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        raise MalformedPayment(f"{what} does not read: {place}: {first['msg']}") from error


def _json(raw: bytes, what: str) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise MalformedPayment(f"{what} has {len(raw)} bytes, at most {MAX_BYTES} are taken")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedPayment(f"{what} is not JSON: {str(error)[:120]}") from error
    if not isinstance(value, dict):
        raise MalformedPayment(f"{what} is no JSON object")
    if _deeper_than(value, MAX_DEPTH):
        raise MalformedPayment(f"{what} is nested more than {MAX_DEPTH} levels deep")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return document


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _deeper_than(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for entry in layer
            if isinstance(entry, (dict, list))
            for inner in (entry.values() if isinstance(entry, dict) else entry)
        ]
        if not layer:
            return False
    return True
