"""Yuma consensus: from the validators' weights and stake to incentives, dividends and bonds, in torch.

One call of `epoch` is what the chain computes at the end of a tempo: classic Yuma, Yuma3, and Yuma3 with
liquid alpha. It follows subtensor's pallets/subtensor/src/epoch (run_epoch, math):

    S  stake over all neurons, normalised          A  stake of active validators with a permit, normalised
    W  weights after the masks, row-normalised     C  consensus: the A-weighted median of each column at kappa
    T  min(W, C)                                   I  incentive: normalised sum over i of A_i T_ij
    V  W + penalty (T - W), the weights that bonds are bought with

    classic  B = colnorm(alpha colnorm(A V) + (1 - alpha) colnorm(B_old))     D = normalise(B I)
    Yuma3    B = alpha V + (1 - alpha) B_old,  each alpha its own if liquid   D = normalise(A colnorm(B) I)

Rules:
- Row i of a matrix is validator i, column j is neuron j; n neurons give n x n matrices.
- The chain counts in 64-bit fixed point with 32 fractional bits (I32F32). Here every product and quotient is
  float64 cut down to that grid, so that bonds, which are floored to u16 at each epoch and carried to the
  next, follow the chain's and do not drift from them. Shares therefore sum to one only to about n / 2**32.
- Stored bonds are u16. Classic ones are scaled so that the largest of a column is 65535; Yuma3's are shares.
- A weight of zero is a weight: the bond behind it decays by its coefficient.
- Nothing here knows a block, a subnet or a key: masks come in as facts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

U16_MAX = 65535
_GRID = 2.0**32  # steps of I32F32 in one
_EXPONENT_LIMIT = 20.0  # the chain's exp takes nothing beyond


@dataclass(frozen=True)
class LiquidAlpha:
    """Bounds and slope of the sigmoid that gives each bond its own moving-average coefficient.

    Args:
        low: the least coefficient, in [0, 1].
        high: the greatest, in [low, 1].
        steepness: of the sigmoid, in hundredths; the chain's default is 1000.
    """

    low: float = 0.7
    high: float = 0.9
    steepness: float = 1000.0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                f"liquid alpha needs 0 <= low <= high <= 1, not low {self.low} and high {self.high}"
            )
        if not math.isfinite(self.steepness) or self.steepness < 0:
            raise ValueError(f"liquid alpha's steepness must be a number of at least 0, not {self.steepness}")


@dataclass(frozen=True)
class EpochParameters:
    """A subnet's hyperparameters that the epoch reads; the defaults are the chain's.

    Args:
        kappa: the majority ratio, of 65535.
        bonds_penalty: how far bonds are bought with clipped instead of raw weights, of 65535.
        bonds_moving_average: the share of the old bonds that stays, in millionths.
        yuma3: Yuma3 instead of classic.
        liquid_alpha: read only under Yuma3, as on chain.
    """

    kappa: int = 32767
    bonds_penalty: int = U16_MAX
    bonds_moving_average: int = 900_000
    yuma3: bool = False
    liquid_alpha: LiquidAlpha | None = None

    def __post_init__(self) -> None:
        for name, value, limit in (
            ("kappa", self.kappa, U16_MAX),
            ("bonds_penalty", self.bonds_penalty, U16_MAX),
            ("bonds_moving_average", self.bonds_moving_average, 1_000_000),
        ):
            if not 0 <= value <= limit:
                raise ValueError(f"{name} must be in 0..{limit}, not {value}")


@dataclass(frozen=True)
class EpochResult:
    """Shares in [0, 1], one a neuron, and the n x n bonds in u16 as the chain stores them."""

    consensus: tuple[float, ...]
    incentive: tuple[float, ...]
    dividends: tuple[float, ...]
    emission_share: tuple[float, ...]
    bonds: tuple[tuple[int, ...], ...] = field(repr=False)


def _cut(values: Tensor) -> Tensor:
    """`values` cut down to the grid of I32F32."""
    return torch.floor(values * _GRID) / _GRID


def _cut_scalar(value: float) -> float:
    return math.floor(value * _GRID) / _GRID


def _share(values: Tensor, total: Tensor) -> Tensor:
    """`values / total` on the grid; a total of zero leaves its values as they are."""
    return torch.where(total == 0, values, _cut(values / torch.where(total == 0, 1.0, total)))


def _normalised(vector: Tensor) -> Tensor:
    return _share(vector, vector.sum())


def _columns_normalised(matrix: Tensor) -> Tensor:
    return _share(matrix, matrix.sum(dim=0))


def _vector(values: Sequence[float], n: int, what: str) -> Tensor:
    if len(values) != n:
        raise ValueError(f"{what} has {len(values)} entries for {n} neurons")
    vector = torch.tensor([float(value) for value in values], dtype=torch.float64)
    if not bool(torch.isfinite(vector).all()) or bool((vector < 0).any()):
        raise ValueError(f"{what} must be finite and not negative")
    return vector


def _mask(values: Sequence[bool] | None, n: int, what: str) -> Tensor:
    if values is None:
        return torch.ones(n, dtype=torch.bool)
    if len(values) != n:
        raise ValueError(f"{what} has {len(values)} entries for {n} neurons")
    return torch.tensor([bool(value) for value in values], dtype=torch.bool)


def _blocks(values: Sequence[int] | None, n: int, what: str) -> Tensor | None:
    if values is None:
        return None
    if len(values) != n:
        raise ValueError(f"{what} has {len(values)} entries for {n} neurons")
    return torch.tensor([int(value) for value in values], dtype=torch.int64)


def _matrix(rows: Sequence[Sequence[float]], n: int, what: str) -> Tensor:
    if len(rows) != n:
        raise ValueError(f"{what} has {len(rows)} rows for {n} neurons")
    for uid, row in enumerate(rows):
        if len(row) != n:
            raise ValueError(f"row {uid} of {what} has {len(row)} entries for {n} neurons")
    matrix = torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64).reshape(
        n, n
    )
    if not bool(torch.isfinite(matrix).all()) or bool((matrix < 0).any()):
        raise ValueError(f"{what} must be finite and not negative")
    return matrix


def weighted_median(stake: Tensor | Sequence[float], scores: Tensor, majority: float) -> Tensor:
    """The highest score that stake of at least `majority` stands behind, column by column.

    With the stake normalised and the scores of a column in rising order, it is the first score at which the
    running sum of stake exceeds 1 - majority.

    Args:
        stake: shape (n,), normalised here; entries of zero have no say.
        scores: shape (n, m).
        majority: a ratio in [0, 1].

    Returns:
        shape (m,); zeros when there is no stake.
    """
    weight = torch.as_tensor(stake, dtype=torch.float64)
    if scores.dim() != 2 or weight.shape != scores.shape[:1]:
        raise ValueError(f"stake of shape {tuple(weight.shape)} does not fit scores of {tuple(scores.shape)}")
    voters = weight > 0
    if not bool(voters.any()):
        return torch.zeros(scores.shape[1], dtype=torch.float64)
    weight, scores = _normalised(weight[voters]), scores[voters].to(torch.float64)
    minority = weight.sum() - _cut_scalar(majority)
    ordered, order = scores.sort(dim=0, stable=True)
    exceeds = weight[order].cumsum(dim=0) > minority
    exceeds[-1] = True  # a majority of nothing is satisfied by the highest score
    return ordered.gather(0, exceeds.to(torch.int8).argmax(dim=0, keepdim=True)).squeeze(0)


def _liquid_alphas(weights: Tensor, bonds: Tensor, consensus: Tensor, liquid: LiquidAlpha) -> Tensor:
    """A coefficient for each bond, rising as a buy exceeds the consensus or a sale leaves the bond."""
    low, high = _cut_scalar(liquid.low), _cut_scalar(liquid.high)
    bought = (weights - consensus).clamp(0, 1)
    sold = (bonds - weights).clamp(0, 1)
    distance = torch.where(weights >= bonds, bought, sold)
    exponent = (-liquid.steepness / 100 * (distance - 0.5)).clamp(-_EXPONENT_LIMIT, _EXPONENT_LIMIT)
    sigmoid = _cut(1 / (1 + _cut(torch.exp(exponent))))
    return (low + _cut(sigmoid * (high - low))).clamp(low, high)


def _masked_weights(
    weights: Tensor,
    *,
    permit: Tensor,
    last_update: Tensor | None,
    registered_at: Tensor | None,
    commit_block: Tensor | None,
    owner_uid: int | None,
) -> Tensor:
    """Step 5: what of the weights counts, row-normalised."""
    n = weights.shape[0]
    own = torch.eye(n, dtype=torch.bool)
    if owner_uid is not None:
        own[owner_uid, owner_uid] = False
    dropped = own | ~permit[:, None]
    if last_update is not None and registered_at is not None:
        dropped |= last_update[:, None] <= registered_at[None, :]
    if commit_block is not None and registered_at is not None:
        dropped |= commit_block[:, None] < registered_at[None, :]
    kept = weights.masked_fill(dropped, 0.0)
    return _share(kept, kept.sum(dim=1, keepdim=True))


def epoch(
    *,
    stake: Sequence[float],
    permit: Sequence[bool],
    active: Sequence[bool] | None = None,
    weights: Sequence[Sequence[float]],
    bonds: Sequence[Sequence[int]] | None = None,
    last_update: Sequence[int] | None = None,
    registered_at: Sequence[int] | None = None,
    last_tempo: int | None = None,
    commit_block: Sequence[int | None] | None = None,
    owner_uid: int | None = None,
    parameters: EpochParameters,
) -> EpochResult:
    """One epoch over n neurons.

    Args:
        stake: shape (n,), in any unit; those below the chain's stake threshold are zero already.
        permit: shape (n,), who holds a validator permit as the epoch begins.
        active: shape (n,), whose weights are not past the activity cutoff; all, when left out.
        weights: shape (n, n), in any unit a row; the chain's are u16.
        bonds: shape (n, n), u16 as an earlier epoch stored them; none, when left out.
        last_update: shape (n,), the block at which each validator set its weights. Weights on a neuron that
            registered at that block or later are dropped; left out, no weight is outdated.
        registered_at: shape (n,), the block at which each neuron registered; needed by the three block masks.
        last_tempo: the block of the epoch before; bonds to neurons registered then or later are dropped.
        commit_block: shape (n,), the block of each validator's oldest weight commit that is still unexpired,
            None without one; weights on neurons registered after it are dropped.
        owner_uid: the subnet owner's neuron, which alone may weigh itself.
        parameters: the subnet's hyperparameters.

    Raises:
        ValueError: a shape, a sign or a range is wrong; the message names the argument.
    """
    n = len(stake)
    raw_stake, permits, actives = (
        _vector(stake, n, "stake"),
        _mask(permit, n, "permit"),
        _mask(active, n, "active"),
    )
    updates, registrations = (
        _blocks(last_update, n, "last_update"),
        _blocks(registered_at, n, "registered_at"),
    )
    never = 2**62  # later than any block, so that who has no commit loses no weight to it
    commits = _blocks(
        None if commit_block is None else [never if block is None else block for block in commit_block],
        n,
        "commit_block",
    )
    if registrations is None and (updates is not None or commits is not None or last_tempo is not None):
        raise ValueError("last_update, last_tempo and commit_block say nothing without registered_at")
    if owner_uid is not None and not 0 <= owner_uid < n:
        raise ValueError(f"owner_uid must be in 0..{n - 1}, not {owner_uid}")
    old_bonds = torch.zeros(n, n, dtype=torch.float64) if bonds is None else _matrix(bonds, n, "bonds")
    if bool((old_bonds > U16_MAX).any()):
        raise ValueError(f"bonds must be in 0..{U16_MAX}")

    # A sum that rounds once keeps the result independent of the neurons' order.
    total = math.fsum(raw_stake.tolist())
    all_stake = _share(raw_stake, torch.tensor(total, dtype=torch.float64))
    active_stake = _normalised(all_stake.masked_fill(~(actives & permits), 0.0))

    shares = _masked_weights(
        _matrix(weights, n, "weights"),
        permit=permits,
        last_update=updates,
        registered_at=registrations,
        commit_block=commits,
        owner_uid=owner_uid,
    )
    consensus = weighted_median(active_stake, shares, parameters.kappa / U16_MAX)
    clipped = torch.minimum(shares, consensus)
    incentive = _normalised(_cut(active_stake[:, None] * clipped).sum(dim=0))

    penalty = _cut_scalar(parameters.bonds_penalty / U16_MAX)
    bought = shares + _cut(penalty * (clipped - shares))
    if registrations is not None and last_tempo is not None:
        old_bonds = old_bonds.masked_fill((last_tempo <= registrations)[None, :], 0.0)
    alpha: Tensor | float = 1 - _cut_scalar(parameters.bonds_moving_average / 1_000_000)
    if parameters.yuma3:
        old = _cut(old_bonds / U16_MAX)
        if parameters.liquid_alpha is not None and bool(consensus.any()):
            alpha = _liquid_alphas(bought, old, consensus, parameters.liquid_alpha)
        new_bonds = (_cut(alpha * bought) + _cut((1 - alpha) * old)).clamp(max=1.0)
        held = _cut(_columns_normalised(new_bonds) * incentive).sum(dim=1)
        dividends = _normalised(_cut(active_stake * held))
    else:
        old = _columns_normalised(old_bonds)
        delta = _columns_normalised(_cut(active_stake[:, None] * bought))
        new_bonds = _columns_normalised(_cut(alpha * delta) + _cut((1 - alpha) * old))
        dividends = _normalised(_cut(new_bonds * incentive).sum(dim=1))
        if n:
            new_bonds = _share(new_bonds, new_bonds.amax(dim=0))

    emission = incentive + dividends
    if bool(emission.any()):
        emission = _normalised(emission)
    else:  # no weight counts: pay by stake, and by all of it when none is active
        emission = active_stake if bool(active_stake.any()) else all_stake

    # Without stake a neuron loses its permit as the epoch ends, and its bonds with it; the owner keeps both.
    loses = all_stake == 0
    if owner_uid is not None:
        loses[owner_uid] = False
    stored = torch.floor(new_bonds * U16_MAX).masked_fill(loses[:, None], 0.0).to(torch.int64)
    return EpochResult(
        consensus=tuple(consensus.tolist()),
        incentive=tuple(incentive.tolist()),
        dividends=tuple(dividends.tolist()),
        emission_share=tuple(emission.tolist()),
        bonds=tuple(tuple(row) for row in stored.tolist()),
    )
