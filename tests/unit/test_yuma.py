"""Figures from subtensor's own tests (pallets/subtensor/src/tests/epoch.rs and tests/math.rs), and masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tensorage.yuma import EpochParameters, EpochResult, LiquidAlpha, epoch, weighted_median

VECTORS = Path(__file__).parent.parent / "vectors"
CLASSIC = json.loads((VECTORS / "yuma-classic.json").read_text())
YUMA3 = json.loads((VECTORS / "yuma3.json").read_text())
DEFAULTS = EpochParameters()


def run(**facts: Any) -> EpochResult:
    facts.setdefault("permit", [amount > 0 for amount in facts["stake"]])
    facts.setdefault("parameters", DEFAULTS)
    return epoch(**facts)


def test_classic_bonds_follow_the_chain_to_the_last_unit_over_eight_epochs() -> None:
    n = CLASSIC["n"]
    moved = [list(row) for row in CLASSIC["epochs"][-1]["weights"]]
    moved[2] = [0] * 7 + [65535]
    weights = [stage["weights"] for stage in CLASSIC["epochs"]] + [moved] * 4
    expected = [(stage["bonds_column"], stage["bonds"]) for stage in CLASSIC["expect"]] + [
        (7, [10951, 24609, 49150, 65535]),
        (7, [9559, 21482, 49150, 65535]),
        (7, [8376, 18824, 49150, 65535]),
    ]
    bonds = None
    for matrix, (column, figures) in zip(weights, expected, strict=False):
        bonds = run(stake=CLASSIC["stake"], permit=[True] * n, weights=matrix, bonds=bonds).bonds
        assert [row[column] for row in bonds[:4]] == figures
    # Columns that nobody weighs any more lose a unit at each epoch to the chain's fixed point.
    assert [row[4] for row in bonds[:4]] == [12599, 28317, 49147, 65535]


def test_classic_shares_match_the_chain_to_two_steps_of_its_fixed_point() -> None:
    bonds = None
    for stage, expected in zip(CLASSIC["epochs"], CLASSIC["expect"], strict=True):
        result = run(stake=CLASSIC["stake"], permit=CLASSIC["permit"], weights=stage["weights"], bonds=bonds)
        bonds = result.bonds
        for name in ("incentive", "dividends", "emission_share"):
            if name in expected:
                assert getattr(result, name) == pytest.approx(expected[name], abs=2 * 2**-32)


@pytest.mark.parametrize("case", YUMA3["cases"], ids=lambda case: case["name"])
def test_yuma3_follows_the_chain(case: dict[str, Any]) -> None:
    n = len(case["stake"])
    parameters = EpochParameters(
        kappa=YUMA3["kappa"],
        bonds_penalty=YUMA3["bonds_penalty"],
        bonds_moving_average=YUMA3["bonds_moving_average"],
        yuma3=True,
        liquid_alpha=LiquidAlpha(**YUMA3["liquid_alpha"]) if case["liquid"] else None,
    )
    bonds = [[0] * n for _ in range(n)]
    for stage in case["epochs"]:
        weights = [[0, 0, 0, *row] for row in stage["servers"]] + [[0] * n for _ in range(n - 3)]
        for uid in stage.get("reset_bonds", []):
            bonds = [[0 if column == uid else bond for column, bond in enumerate(row)] for row in bonds]
        result = run(stake=case["stake"], weights=weights, bonds=bonds, parameters=parameters)
        bonds = [list(row) for row in result.bonds]
        for row, expected in zip(bonds, stage.get("bonds", []), strict=False):
            assert [bond / 65535 for bond in row[3:]] == pytest.approx(expected, abs=2e-4)
        if "dividends" in stage:
            assert result.dividends == pytest.approx([*stage["dividends"], *[0] * (n - 3)], abs=2e-4)


@pytest.mark.parametrize(
    ("stake", "scores", "median"),
    [
        ([], [], 0),
        ([0.51], [1], 1),
        ([0.49, 0.51], [0.5, 1], 1),
        ([0.51, 0.49], [0.5, 1], 0.5),
        ([0.49, 0, 0.51], [0.5, 0.7, 1], 1),
        ([0.49, 0.01, 0.5], [0.5, 0.7, 1], 0.7),
        ([0.49, 0.51, 0], [0.5, 0.7, 1], 0.7),
        ([0, 0.49, 0.51], [0.5, 0.7, 1], 1),
        ([0, 0.49, 0, 0.51], [0.5, 0.5, 1, 1], 1),
        ([0, 0.49, 0, 0.51, 0], [0.5, 0.5, 1, 1, 0.5], 1),
        ([0.2] * 5, [0.8, 0.2, 1, 0.6, 0.4], 0.6),
        ([0.1] * 10, [0.8, 0.8, 0.2, 0.2, 1, 1, 0.6, 0.6, 0.4, 0.4], 0.6),
    ],
)
def test_the_weighted_median_is_that_of_the_chains_own_examples(
    stake: list[float], scores: list[float], median: float
) -> None:
    column = torch.tensor(scores, dtype=torch.float64).reshape(-1, 1)
    assert weighted_median(stake, column, 0.51).tolist() == [median]


def test_medians_are_taken_column_by_column() -> None:
    scores = torch.tensor([[0, 0.1, 0], [0, 0.2, 0.4], [0, 0.3, 0.1], [0, 0.4, 0.5]], dtype=torch.float64)
    assert weighted_median([0, 0.3, 0.4, 0.3], scores, 0.5).tolist() == [0, 0.3, 0.4]
    assert weighted_median([0, 0, 0, 0], scores, 0.5).tolist() == [0, 0, 0]


def test_stake_of_validators_past_the_activity_cutoff_has_no_say() -> None:
    weights = [[0, 0, 1, 1], [0, 0, 1, 1], [0] * 4, [0] * 4]
    both = run(stake=[1] * 4, weights=weights, active=[True, True, False, False])
    assert [row[2:] for row in both.bonds[:2]] == [(65535, 65535)] * 2
    one = run(stake=[1] * 4, weights=weights, active=[True, False, False, False], bonds=both.bonds)
    assert one.emission_share == pytest.approx([0.275, 0.225, 0.25, 0.25], abs=2e-9)
    assert [row[2:] for row in one.bonds[:2]] == [(65535, 65535), (53619, 53619)]
    again = run(stake=[1] * 4, weights=weights, active=[True, True, False, False], bonds=one.bonds)
    assert again.dividends[:2] == pytest.approx([0.545002266, 0.4549977337], abs=1e-10)
    assert [row[2:] for row in again.bonds[:2]] == [(65535, 65535), (54712, 54712)]


def test_weights_and_bonds_on_a_neuron_that_was_replaced_do_not_count() -> None:
    weights = [[0, 0, 65535, 32768], [0, 0, 65535, 32768], [0, 0, 65535, 0], [0, 0, 0, 65535]]
    result = run(
        stake=[1, 1, 1, 0],
        weights=weights,
        bonds=[[0, 0, 65535, 65535], [0, 0, 65535, 65535], [0] * 4, [0] * 4],
        last_update=[2, 1, 1, 1],
        registered_at=[0, 0, 0, 1],
        last_tempo=2,
    )
    assert result.consensus == pytest.approx([0, 0, 0.6666632756, 0], abs=1e-10)
    assert result.incentive == (0, 0, 1, 0)
    assert result.emission_share == (0.25, 0.25, 0.5, 0)
    masked = run(
        stake=[1, 1, 1, 0],
        weights=weights,
        bonds=[[0, 0, 65535, 100], [0, 0, 65535, 65535], [0] * 4, [0] * 4],
        registered_at=[0, 0, 0, 3],
        last_tempo=3,
    )
    assert masked.bonds[0][3] == masked.bonds[1][3] == 65535  # equal weights on a column without a past


def test_a_commit_older_than_a_registration_drops_the_weight_on_the_newcomer() -> None:
    facts: dict[str, Any] = {
        "stake": [1, 0, 0],
        "weights": [[0, 1, 1], [0] * 3, [0] * 3],
        "last_update": [9, 0, 0],
    }
    facts["registered_at"] = [0, 5, 4]
    assert run(**facts, commit_block=[4, None, None]).incentive == (0, 0, 1)
    assert run(**facts, commit_block=[None, 1, 1]).incentive == (0, 0.5, 0.5)


def test_weights_without_a_permit_and_on_oneself_are_dropped_except_the_owners_own() -> None:
    weights = [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert run(stake=[1, 1, 0], permit=[True, False, False], weights=weights).incentive == (0, 1, 0)
    owned = run(stake=[1, 1, 0], permit=[True, False, False], weights=weights, owner_uid=0)
    assert owned.incentive == (0.5, 0.5, 0)


def test_without_a_weight_that_counts_the_emission_goes_by_active_stake_then_by_all_stake() -> None:
    nothing = [[0] * 3 for _ in range(3)]
    stake = [6, 2, 8]
    assert run(stake=stake, weights=nothing, permit=[True, True, False]).emission_share == (0.75, 0.25, 0)
    idle = run(stake=stake, weights=nothing, permit=[True, True, False], active=[False] * 3)
    assert idle.emission_share == (0.375, 0.125, 0.5)
    assert run(stake=[0, 0, 0], weights=nothing).emission_share == (0, 0, 0)


def test_a_validator_that_lost_its_stake_loses_its_bonds_but_the_owner_does_not() -> None:
    bonds = [[0, 0, 65535], [0, 0, 65535], [0, 0, 0]]
    weights = [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    facts: dict[str, Any] = {
        "stake": [0, 1, 0],
        "permit": [True, True, False],
        "weights": weights,
        "bonds": bonds,
    }
    assert run(**facts).bonds[0] == (0, 0, 0)
    assert run(**facts, owner_uid=0).bonds[0][2] > 0


def test_the_bonds_penalty_moves_bought_bonds_between_raw_and_clipped_weights() -> None:
    facts: dict[str, Any] = {"stake": [3, 1, 0, 0], "weights": [[0, 0, 1, 0], [0, 0, 0, 1], [0] * 4, [0] * 4]}

    def bought(penalty: int) -> int:
        parameters = EpochParameters(bonds_penalty=penalty, bonds_moving_average=0, yuma3=True)
        return run(**facts, parameters=parameters).bonds[1][3]

    assert (bought(0), bought(32768), bought(65535)) == (65535, 32767, 0)


def test_liquid_alpha_with_equal_bounds_is_a_plain_moving_average() -> None:
    facts: dict[str, Any] = {"stake": [2, 1, 0, 0], "weights": [[0, 0, 2, 3], [0, 0, 4, 1], [0] * 4, [0] * 4]}
    facts["bonds"] = [[0, 0, 6000, 60000], [0, 0, 40000, 500], [0] * 4, [0] * 4]
    plain = EpochParameters(yuma3=True, bonds_penalty=0, bonds_moving_average=750_000)
    liquid = EpochParameters(yuma3=True, bonds_penalty=0, liquid_alpha=LiquidAlpha(0.25, 0.25, 1000))
    assert run(**facts, parameters=liquid).bonds == run(**facts, parameters=plain).bonds


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"permit": [True]}, "permit has 1 entries for 2 neurons"),
        ({"active": [True]}, "active has 1"),
        ({"weights": [[0, 1]]}, "weights has 1 rows"),
        ({"weights": [[0, 1], [0]]}, "row 1 of weights has 1"),
        ({"weights": [[0, -1], [0, 0]]}, "weights must be finite and not negative"),
        ({"stake": [float("nan"), 1]}, "stake must be finite"),
        ({"bonds": [[0, 65536], [0, 0]]}, "bonds must be in 0..65535"),
        ({"owner_uid": 2}, "owner_uid must be in 0..1"),
        ({"last_tempo": 3}, "without registered_at"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    facts: dict[str, Any] = {"stake": [1, 1], "permit": [True, True], "weights": [[0, 1], [1, 0]]}
    with pytest.raises(ValueError, match=named):
        run(**(facts | wrong))


def test_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="kappa"):
        EpochParameters(kappa=65536)
    with pytest.raises(ValueError, match="low <= high"):
        LiquidAlpha(0.9, 0.7)
