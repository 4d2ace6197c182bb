"""What the handler of a route gets: who asks, and what, still unparsed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from ..chain.types import Neuron
from ..errors import RequestError
from .admission import Client
from .messages import parse

_NUMBER = re.compile(r"[0-9]{1,20}")

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Call:
    """A request that was admitted: who asks, and what, still unparsed.

    Attributes:
        caller: the neuron whose hotkey signed the request; None for a key, for a hotkey that is not known to
            be registered, and where nothing is signed.
        path: the parameters of the route's template, decoded.
        query: the query's parameters, decoded; of a name given twice, the last value.
        body: the raw bytes that were signed.
        client: who signed; None where nothing is.
    """

    caller: Neuron | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    client: Client | None = None

    @property
    def neuron(self) -> Neuron:
        """The caller, on a route for those who are registered.

        Raises:
            RequestError: "forbidden"; it is not known to be.
        """
        if self.caller is None:
            raise RequestError("forbidden", "this is for hotkeys that are registered on this subnet")
        return self.caller

    @property
    def signer(self) -> Client:
        """Who signed, on a route where somebody does; RequestError "unauthenticated" where nobody did."""
        if self.client is None:
            raise RequestError("unauthenticated", "the request is not signed")
        return self.client

    def json(self, model: type[M]) -> M:
        """The body as a wire message; RequestError "malformed" when it is none."""
        return parse(model, self.body)

    def number(
        self, name: str, default: int | None = None, *, low: int = 0, high: int = (1 << 64) - 1
    ) -> int:
        """A decimal parameter of the path or the query, between `low` and `high`.

        Raises:
            RequestError: "malformed"; missing without a default, no number, or out of range.
        """
        text = self.path.get(name, self.query.get(name))
        if text is None:
            if default is None:
                raise RequestError("malformed", f"{name} is missing")
            return default
        if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
            raise RequestError("malformed", f"{name} must be a number from {low} to {high}")
        return int(text)
