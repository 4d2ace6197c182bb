"""What Yuma consensus promises for any stakes and weights."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorage.yuma import EpochParameters, EpochResult, LiquidAlpha, epoch

SLACK = 1e-7  # a step of the chain's fixed point, 2**-32, for each of many operations

parameters = st.builds(
    EpochParameters,
    kappa=st.integers(0, 65535),
    bonds_penalty=st.sampled_from([0, 20000, 65535]),
    bonds_moving_average=st.integers(0, 1_000_000),
    yuma3=st.booleans(),
    liquid_alpha=st.none() | st.just(LiquidAlpha(0.1, 0.3, 1000)),
)


@st.composite
def subnets(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(1, 7))

    def vector(of: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(of, min_size=n, max_size=n))

    u16 = st.sampled_from([0, 0, 1, 65535]) | st.integers(0, 65535)
    return {
        "stake": vector(st.sampled_from([0, 1, 5]) | st.integers(0, 10**16)),
        "permit": vector(st.booleans()),
        "active": vector(st.booleans()),
        "weights": [vector(u16) for _ in range(n)],
        "bonds": [vector(u16) for _ in range(n)],
    }


def permuted(facts: dict[str, Any], order: list[int]) -> dict[str, Any]:
    def by_neuron(values: Any) -> list[Any]:
        return [values[uid] for uid in order]

    return {
        name: [by_neuron(row) for row in by_neuron(value)]
        if name in ("weights", "bonds")
        else by_neuron(value)
        for name, value in facts.items()
    }


def shares(result: EpochResult) -> list[tuple[float, ...]]:
    return [result.consensus, result.incentive, result.dividends, result.emission_share]


@given(subnets(), parameters)
def test_shares_are_shares_and_bonds_are_u16(facts: dict[str, Any], parameters: EpochParameters) -> None:
    result = epoch(**facts, parameters=parameters)
    for share in (result.incentive, result.dividends, result.emission_share):
        assert all(0 <= value <= 1 for value in share)
        assert sum(share) == pytest.approx(1, abs=SLACK) or not any(share)
    assert any(result.emission_share) or not any(facts["stake"])
    assert all(0 <= bond <= 65535 for row in result.bonds for bond in row)


@given(subnets(), parameters, st.data())
def test_the_order_of_the_neurons_changes_nothing(
    facts: dict[str, Any], parameters: EpochParameters, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(facts["stake"]))))
    plain, moved = (epoch(**f, parameters=parameters) for f in (facts, permuted(facts, order)))
    assert shares(moved) == [tuple(share[uid] for uid in order) for share in shares(plain)]
    assert moved.bonds == tuple(tuple(plain.bonds[i][j] for j in order) for i in order)


@given(subnets(), parameters, st.sampled_from([2**-20, 0.5, 4, 2**30]))
def test_the_units_of_stake_and_weights_change_nothing(
    facts: dict[str, Any], parameters: EpochParameters, scale: float
) -> None:
    scaled = facts | {
        "stake": [amount * scale for amount in facts["stake"]],
        "weights": [[weight * scale for weight in row] for row in facts["weights"]],
    }
    assert epoch(**scaled, parameters=parameters) == epoch(**facts, parameters=parameters)


@given(
    st.integers(51, 99),
    st.lists(st.integers(0, 65535), min_size=3, max_size=3).filter(any),
    st.lists(st.integers(0, 65535), min_size=3, max_size=3).filter(any),
    st.booleans(),
)
def test_a_minority_cannot_lift_a_neuron_above_the_majoritys_weight(
    majority: int, honest: list[int], wished: list[int], yuma3: bool
) -> None:
    weights = [[0, 0, *honest], [0, 0, *wished], *[[0] * 5 for _ in range(3)]]
    stake = [majority, 100 - majority, 0, 0, 0]
    result = epoch(
        stake=stake,
        permit=[True, True, False, False, False],
        weights=weights,
        parameters=EpochParameters(yuma3=yuma3),
    )
    for consensus, weight in zip(result.consensus[2:], honest, strict=True):
        assert consensus <= weight / sum(honest) + SLACK


@given(subnets(), parameters)
def test_nobody_without_a_permit_earns_a_dividend_from_new_weights(
    facts: dict[str, Any], parameters: EpochParameters
) -> None:
    fresh = facts | {"bonds": None}
    result = epoch(**fresh, parameters=parameters)
    for permit, stake, dividend in zip(facts["permit"], facts["stake"], result.dividends, strict=True):
        assert (permit and stake) or dividend == 0


@given(subnets(), st.booleans())
def test_unchanged_weights_bring_yuma3_bonds_to_the_weights(facts: dict[str, Any], liquid: bool) -> None:
    parameters = EpochParameters(
        yuma3=True,
        bonds_penalty=0,
        bonds_moving_average=500_000,
        liquid_alpha=LiquidAlpha(0.4, 0.6, 1000) if liquid else None,
    )
    everyone = [1] * len(facts["stake"])
    facts = facts | {"stake": everyone, "permit": everyone}
    for _ in range(30):
        facts["bonds"] = epoch(**facts, parameters=parameters).bonds
    for uid, row in enumerate(facts["weights"]):
        total = sum(row) - row[uid]
        for other, bond in enumerate(facts["bonds"][uid]):
            target = 0 if other == uid or not total else row[other] / total
            assert bond == pytest.approx(65535 * target, abs=4)  # the floor stops a rise that is too small
