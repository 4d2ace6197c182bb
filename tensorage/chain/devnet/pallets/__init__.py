"""The calls of the devnet's runtime, by pallet. Importing the package fills the table of dispatchables."""

from . import admin, balances, commitments, neurons, registration, serving, stake, weights, wrappers

__all__ = [
    "admin",
    "balances",
    "commitments",
    "neurons",
    "registration",
    "serving",
    "stake",
    "weights",
    "wrappers",
]
