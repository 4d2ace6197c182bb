"""What a server is started with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..identity import Signer
from ..store import Store
from .selling import Sale

Membership = Literal["open", "invite"]


@dataclass(frozen=True)
class Context:
    """The one dataset that is served, and how.

    Attributes:
        signer: the owner's key; signs head statements and offers.
        owner_token: opens everything; new for each publishing.
        membership: whether codes are approved by the owner, or as they are issued.
        clock: unix seconds.
        sale: what sells access; None where nothing does.
        mirrors: URLs at which the same bytes are to be had.
        subnet: whether members are shown the links to artifacts in the storage subnet.
    """

    id: str
    store: Store
    signer: Signer
    owner_token: str
    membership: Membership
    clock: Callable[[], int]
    rng: Callable[[int], bytes] = os.urandom
    sale: Sale | None = None
    mirrors: tuple[str, ...] = ()
    subnet: bool = False
