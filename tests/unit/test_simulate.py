"""Scenarios of `tensorage simulate yuma`: what they may say and how what is wrong is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tensorage.config import run
from tensorage.errors import UsageError
from tensorage.simulate import simulate, simulate_app

CLASSIC = Path(__file__).parent.parent / "vectors" / "yuma-classic.json"
WEIGHTS = [[0, 0, 1, 3], [0, 0, 2, 2], [0] * 4, [0] * 4]


def scenario(**facts: Any) -> dict[str, Any]:
    return {"stake": [3, 1, 0, 0], "epochs": [{"weights": WEIGHTS}, {}]} | facts


Invoke = Callable[[Path], tuple[int, str, str]]


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Runs the command on a file; gives exit code, stdout and stderr."""

    def run_it(path: Path) -> tuple[int, str, str]:
        code = run(simulate_app, ["yuma", str(path)])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def test_the_command_prints_the_classic_vector(invoke: Invoke) -> None:
    code, stdout, stderr = invoke(CLASSIC)
    assert (code, stderr) == (0, "")
    epochs = json.loads(stdout)["epochs"]
    for result, expected in zip(epochs, json.loads(CLASSIC.read_text())["expect"], strict=True):
        assert [row[expected["bonds_column"]] for row in result["bonds"][:4]] == expected["bonds"]
        for name in {"incentive", "dividends", "emission_share"} & expected.keys():
            assert result[name] == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize(
    "liquid",
    [
        {"low": 0.2, "high": 0.6, "steepness": 1000},
        {"alpha_low": 0.2, "alpha_high": 0.6},
        {"low": 13107, "high": 39321, "alpha_sigmoid_steepness": 1000},
        [0.2, 0.6],
        [13107, 39321, 1000],
    ],
)
def test_liquid_alpha_may_be_spelt_in_several_ways(liquid: Any) -> None:
    plain = {"low": 0.2, "high": 0.6, "steepness": 1000}
    same = simulate(scenario(yuma3=True, bonds_penalty=0, liquid_alpha=liquid))
    assert same == simulate(scenario(yuma3=True, bonds_penalty=0, liquid_alpha=plain))
    assert same != simulate(scenario(yuma3=True, bonds_penalty=0))


def test_true_is_liquid_alpha_with_the_chains_defaults() -> None:
    bounds = {"low": 0.7, "high": 0.9, "steepness": 1000}
    assert simulate(scenario(yuma3=True, liquid_alpha=True)) == simulate(
        scenario(yuma3=True, liquid_alpha=bounds)
    )


def test_an_epoch_without_weights_keeps_the_ones_before_and_its_own_facts_end_with_it() -> None:
    epochs = [{"weights": WEIGHTS}, {"stake": [0, 1, 0, 0]}, {"weights": WEIGHTS}]
    first, second, third = simulate(scenario(epochs=epochs))["epochs"]
    assert second["incentive"] == pytest.approx([0, 0, 0.5, 0.5])
    assert third["incentive"] == first["incentive"] != second["incentive"]


def test_bonds_are_carried_from_epoch_to_epoch_and_may_be_reset() -> None:
    kept = simulate(scenario(yuma3=True, bonds_penalty=0))["epochs"]
    assert kept[1]["bonds"][0][2] > kept[0]["bonds"][0][2] > 0
    reset = simulate(
        scenario(yuma3=True, bonds_penalty=0, epochs=[{"weights": WEIGHTS}, {"reset_bonds": [2]}])
    )
    assert reset["epochs"][1]["bonds"][0][2] == kept[0]["bonds"][0][2]
    assert reset["epochs"][1]["bonds"][0][3] == kept[1]["bonds"][0][3]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kappa": 70000}, "kappa"),
        ({"stake": [1, -1, 0, 0]}, "stake.1"),
        ({"stake": [1, 1]}, "row"),
        ({"n": 3}, "stake has 4 entries for 3"),
        ({"epochs": []}, "epochs"),
        ({"epochs": [{"weights": [[1]]}]}, "epoch 0: weights has 1 rows"),
        ({"epochs": [{"weights": "x"}]}, "epochs.0.weights"),
        ({"liquid_alpha": {"low": 0.9, "high": 0.1}}, "exceeds"),
        ({"liquid_alpha": {"lo": 0.9}}, "liquid_alpha.lo"),
        ({"owner_uid": 4}, "owner_uid"),
    ],
)
def test_a_scenario_that_is_wrong_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        simulate(scenario(**wrong))


@pytest.mark.parametrize(
    "content", ["", "[1]", "{", '{"stake": [1], "epochs": 3}', '{"stake": [NaN], "epochs": [{}]}']
)
def test_a_file_that_is_no_scenario_costs_one_line_and_exit_code_2(
    tmp_path: Path, content: str, invoke: Invoke
) -> None:
    path = tmp_path / "scenario.json"
    path.write_text(content)
    code, stdout, stderr = invoke(path)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)


def test_a_file_that_is_not_there_costs_one_line_and_exit_code_2(tmp_path: Path, invoke: Invoke) -> None:
    code, _, stderr = invoke(tmp_path / "none.json")
    assert (code, stderr.count("\n")) == (2, 1)
    assert "none.json" in stderr


def test_a_misspelt_key_is_named_and_notes_are_not(tmp_path: Path, invoke: Invoke) -> None:
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(scenario(kapa=1, source="mine", expect=[])))
    code, _, stderr = invoke(path)
    assert (code, stderr) == (0, "ignored in the scenario: kapa\n")
