"""What a version costs, in the smallest unit of its asset.

Prices are decimal text in whole units (TAO, USDC) and are counted in whole numbers throughout; no float
comes near them. A price for each MB is for 2^20 bytes and for the part of one that is left, and the whole
is rounded up to the next smallest unit. A price that is absent, zero, negative or no plain decimal is
refused: a dataset is never free by mistake.
"""

from __future__ import annotations

import re
from decimal import Decimal

from ...errors import UsageError
from ..sales import OfferTerms, Unit

TAO_DECIMALS = 9
USDC_DECIMALS = 6
MB = 1 << 20
MAX_AMOUNT = 2**64 - 1
_PRICE = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,18})?", re.ASCII)
_ATOMIC = re.compile(r"[1-9][0-9]{0,38}", re.ASCII)


def price(text: str | None) -> Decimal:
    """A price in whole units.

    Raises:
        UsageError: it is absent, not above zero, or not written as plain decimal digits.
    """
    if not text:
        raise UsageError(
            "no price is given", remedy="Give one with --price, such as 0.5; free datasets have none"
        )
    if not _PRICE.fullmatch(text):
        raise UsageError(
            f"price {text[:40]!r} is no plain decimal number of at most 12 and 18 digits",
            remedy="Write it like 2 or 0.25, in TAO or USDC",
        )
    value = Decimal(text)
    if value <= 0:
        raise UsageError(
            f"price {text} is not above zero", remedy="Leave the price out to give it to members only"
        )
    return value


def amount(text: str | None, unit: Unit, size: int, decimals: int) -> int:
    """What a version of `size` bytes costs, in the smallest unit of an asset of so many decimals.

    Args:
        unit: "flat", or "mb" for a price for each 2^20 bytes.

    Raises:
        UsageError: as `price`; a flat price with more digits than the asset has, an empty file by the MB, a
            unit that is neither, or more than 2^64 - 1.
    """
    above, below = price(text).as_integer_ratio()
    above *= int(10**decimals)
    if unit == "mb":
        if size <= 0:
            raise UsageError(f"a file of {size} bytes has no price by the MB", remedy="Give a flat --price")
        total = -(-above * size // (below * MB))
    elif unit == "flat":
        total, rest = divmod(above, below)
        if rest:
            raise UsageError(
                f"price {text} has more digits than the {decimals} that the asset has",
                remedy="Round it to those",
            )
    else:
        raise UsageError(f"{unit!r} is no unit of a price", remedy="Take flat or mb")
    if not 0 < total <= MAX_AMOUNT:
        raise UsageError(f"price {text} comes to {total} of the smallest unit, which nobody can pay")
    return total


def amount_of(terms: OfferTerms | None, size: int) -> int:
    """What a version of `size` bytes costs by an owner's terms, in the smallest unit.

    Raises:
        UsageError: as `amount`; there are no terms.
    """
    if terms is None:
        raise UsageError("this dataset is not for sale", remedy="Give a --price")
    return amount(terms.price, terms.unit, size, decimals(terms.network))


def decimals(network: str) -> int:
    """How many decimals the asset of a network has: TAO on Bittensor, USDC on EVM chains.

    Raises:
        UsageError: a network of another kind.
    """
    kind, _, rest = network.partition(":")
    if rest and kind == "bittensor":
        return TAO_DECIMALS
    if rest and kind == "eip155":
        return USDC_DECIMALS
    raise UsageError(f"there is no paying on network {network!r}", remedy="Take bittensor:... or eip155:...")


def shown(amount: int, network: str) -> str:
    """An amount as people read it: in whole units, and in the smallest, which the wire and --max-price have.

    Raises:
        UsageError: nothing is paid on such a network.
    """
    digits = decimals(network)
    whole = f"{Decimal(amount).scaleb(-digits):f}"
    whole = whole.rstrip("0").rstrip(".") if "." in whole else whole
    name, smallest = ("TAO", "rao") if digits == TAO_DECIMALS else ("USDC", "millionths")
    return f"{whole} {name} ({amount} {smallest})"


def read_atomic(text: str) -> int:
    """A number of smallest units, as the wire and --max-price have it: decimal digits, above zero, and
    nothing else.

    Raises:
        ValueError: anything else, such as 1e9, 0x10, -1, a space or a leading zero.
    """
    if not isinstance(text, str) or not _ATOMIC.fullmatch(text):
        raise ValueError(
            f"{text!r:.60} is no amount: write decimal digits, above zero, without anything else"
        )
    return int(text)
