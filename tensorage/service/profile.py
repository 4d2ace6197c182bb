"""Which sector profile a network takes."""

from __future__ import annotations

from ..errors import UsageError
from ..seal import DEV, MAIN


def profile_of(number: int | None, *, local: bool) -> int:
    """The sector profile to use: the one asked for, else the network's own.

    Args:
        local: whether the network is one without value, such as a devnet.

    Raises:
        UsageError: the one for tests, on a network where others would believe in it.
    """
    if number is None:
        return (DEV if local else MAIN).number
    if number == DEV.number and not local:
        raise UsageError(
            f"profile {DEV.number} proves nothing, so it is for a devnet only",
            remedy="Leave --profile out",
        )
    return number
