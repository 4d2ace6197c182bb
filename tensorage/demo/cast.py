"""Who takes part in the demo, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["honest", "overwritten", "zeros"]

WALLET = "demo"  # one coldkey owns all, each neuron has a hotkey of its own
VALIDATORS = ("validator-1", "validator-2")
VALIDATOR_STAKES = (6_000.0, 4_000.0)  # TAO
UNIT = 8  # sectors of profile 0 in the smallest honest miner


@dataclass(frozen=True, slots=True)
class Miner:
    """A miner of the demo; `name` is its hotkey's name, `sectors` what it commits to, of profile 0."""

    name: str
    kind: Kind
    sectors: int

    @property
    def seals(self) -> bool:
        """Whether it fills its disk with the real command; who commits to zeros has no use for that."""
        return self.kind != "zeros"


MINERS = (
    Miner("miner-1", "honest", 1 * UNIT),
    Miner("miner-2", "honest", 2 * UNIT),
    Miner("miner-4", "honest", 4 * UNIT),
    Miner("overwritten", "overwritten", 4 * UNIT),
    Miner("zeros", "zeros", 4 * UNIT),
)
