"""`tensorage simulate yuma`: Yuma consensus over a scenario of several epochs, without a chain.

A scenario is a JSON object. What it says at the top holds for every epoch; what an epoch says holds for
that epoch only. Bonds go from one epoch to the next as the chain stores them.

    {"n": 3, "stake": [8, 2, 0], "permit": [true, true, false], "kappa": 32767, "bonds_penalty": 65535,
     "bonds_moving_average": 900000, "yuma3": false, "liquid_alpha": null, "owner_uid": null,
     "epochs": [{"weights": [[0, 0, 65535], [0, 0, 65535], [0, 0, 0]]}, {"stake": [8, 3, 0]}]}

Only `stake` and `epochs` must be there; the rest has the chain's defaults. An epoch without `weights` keeps
those of the epoch before it. `permit` is by default everyone with stake, `active` everyone. `last_update`,
`registered_at`, `last_tempo` and `commit_block` are the blocks of `tensorage.yuma.epoch`: without them no
weight and no bond is outdated. `liquid_alpha` is {"low": 0.7, "high": 0.9, "steepness": 1000}, the same as a
list, or `true` for these defaults; bounds above 1 are the chain's u16.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import UsageError

if TYPE_CHECKING:
    from .yuma import EpochParameters

U16 = Annotated[int, Field(ge=0, le=65535)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Block = Annotated[int, Field(ge=0)]
_NOTES = {"expect", "source"}  # said about a scenario, not part of it


def _ratio(value: Any) -> Any:
    """A bound of liquid alpha as a share: what exceeds 1 is counted in the chain's 65535ths."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value / 65535 if is_number and value > 1 else value


class _LiquidAlpha(BaseModel):
    model_config = ConfigDict(extra="forbid")

    low: Annotated[float, BeforeValidator(_ratio), Field(ge=0, le=1)] = 0.7
    high: Annotated[float, BeforeValidator(_ratio), Field(ge=0, le=1)] = 0.9
    steepness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1000.0

    @model_validator(mode="after")
    def _ordered(self) -> _LiquidAlpha:
        if self.low > self.high:
            raise ValueError(f"low {self.low} exceeds high {self.high}")
        return self


_SPELLINGS = {
    "alpha_low": "low",
    "alpha_high": "high",
    "alpha_sigmoid_steepness": "steepness",
    "alpha_steepness": "steepness",
    "sigmoid_steepness": "steepness",
}


def _liquid_alpha(value: Any) -> Any:
    """The three fields from whichever spelling the scenario has; what is none of them is left to fail."""
    if value is False:
        return None
    if value is True:
        return {}
    if isinstance(value, list) and 2 <= len(value) <= 3:
        return dict(zip(("low", "high", "steepness"), value, strict=False))
    if isinstance(value, dict):
        return {_SPELLINGS.get(key, key): item for key, item in value.items()}
    return value


class _Facts(BaseModel):
    """What a scenario and each of its epochs may say."""

    model_config = ConfigDict(extra="allow")

    stake: list[Amount] | None = None
    permit: list[bool] | None = None
    active: list[bool] | None = None
    last_update: list[Block] | None = None
    registered_at: list[Block] | None = None
    last_tempo: Block | None = None
    commit_block: list[Block | None] | None = None
    owner_uid: Block | None = None
    kappa: U16 = 32767
    bonds_penalty: U16 = 65535
    bonds_moving_average: Annotated[int, Field(ge=0, le=1_000_000)] = 900_000
    yuma3: bool = False
    liquid_alpha: Annotated[_LiquidAlpha | None, BeforeValidator(_liquid_alpha)] = None
    bonds: list[list[U16]] | None = None


class _Epoch(_Facts):
    weights: list[list[Amount]] | None = None
    reset_bonds: list[Block] = []  # neurons to which all bonds are dropped before the epoch


class Scenario(_Facts):
    """A validated scenario; see the module."""

    n: Annotated[int, Field(ge=1, le=4096)]
    stake: list[Amount]
    epochs: Annotated[list[_Epoch], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, dict) and "n" not in value and isinstance(value.get("stake"), list):
            return {**value, "n": len(value["stake"])}
        return value

    def unknown(self) -> list[str]:
        """The keys that mean nothing here, such as misspelt ones; `expect` and `source` are notes."""
        keys = {key for facts in (self, *self.epochs) for key in facts.model_extra or {}}
        return sorted(keys - _NOTES)


def _read(scenario: object) -> Scenario:
    try:
        return Scenario.model_validate(scenario)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the scenario"
        raise UsageError(
            f"{where}: {first['msg'].removeprefix('Value error, ')}",
            remedy="Correct the scenario; `python -m pydoc tensorage.simulate` shows its form",
        ) from error


def _parameters(facts: _Facts) -> EpochParameters:
    from .yuma import EpochParameters, LiquidAlpha  # noqa: PLC0415 - torch loads for seconds

    liquid = facts.liquid_alpha
    return EpochParameters(
        kappa=facts.kappa,
        bonds_penalty=facts.bonds_penalty,
        bonds_moving_average=facts.bonds_moving_average,
        yuma3=facts.yuma3,
        liquid_alpha=None if liquid is None else LiquidAlpha(liquid.low, liquid.high, liquid.steepness),
    )


def simulate(scenario: dict[str, Any]) -> dict[str, list[dict[str, list[Any]]]]:
    """Run `scenario` and return {"epochs": [...]}, an entry an epoch.

    Each entry has consensus, incentive, dividends and emission_share (n shares) and bonds (n rows of n u16,
    a row a validator, as the chain stores them).

    Raises:
        UsageError: the scenario is not of the form that the module describes.
    """
    from .yuma import epoch  # noqa: PLC0415 - torch loads for seconds

    checked = _read(scenario)
    n = checked.n
    weights: list[list[float]] = [[0.0] * n for _ in range(n)]
    bonds: list[list[int]] = checked.bonds or [[0] * n for _ in range(n)]
    results: list[dict[str, list[Any]]] = []
    for number, own in enumerate(checked.epochs):
        said = {name: getattr(own, name) for name in own.model_fields_set & _Facts.model_fields.keys()}
        facts = _Facts.model_construct(
            **{name: getattr(checked, name) for name in _Facts.model_fields} | said
        )
        weights = weights if own.weights is None else own.weights
        stake = facts.stake or []
        try:
            if len(stake) != n:
                raise ValueError(f"stake has {len(stake)} entries for {n} neurons")  # noqa: TRY301
            before = own.bonds or bonds
            result = epoch(
                stake=stake,
                permit=[amount > 0 for amount in stake] if facts.permit is None else facts.permit,
                active=facts.active,
                weights=weights,
                bonds=[[0 if uid in own.reset_bonds else b for uid, b in enumerate(row)] for row in before],
                last_update=facts.last_update,
                registered_at=facts.registered_at,
                last_tempo=facts.last_tempo,
                commit_block=facts.commit_block,
                owner_uid=facts.owner_uid,
                parameters=_parameters(facts),
            )
        except ValueError as error:
            raise UsageError(
                f"epoch {number}: {error}",
                remedy="Give every list one entry a neuron and blocks their registered_at",
            ) from error
        bonds = [list(row) for row in result.bonds]
        results.append(
            {
                "consensus": list(result.consensus),
                "incentive": list(result.incentive),
                "dividends": list(result.dividends),
                "emission_share": list(result.emission_share),
                "bonds": bonds,
            }
        )
    return {"epochs": results}


def load(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        UsageError: it cannot be read or is none.
    """
    try:
        scenario = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: math.nan)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", remedy="Name a scenario file") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", remedy="Name a file with one JSON object") from error
    if not isinstance(scenario, dict):
        raise UsageError(f"{path} holds no JSON object", remedy="Name a file with one JSON object")
    return scenario


simulate_app = typer.Typer(
    help="Run the subnet's mechanisms on paper.", no_args_is_help=True, add_completion=False
)


@simulate_app.callback()
def _simulations() -> None:
    """Run the subnet's mechanisms on paper."""


@simulate_app.command("yuma")
def yuma_command(
    scenario: Annotated[
        Path, typer.Argument(metavar="SCENARIO.json", help="Stakes, weights and parameters.")
    ],
) -> None:
    """Print what Yuma consensus makes of SCENARIO.json, epoch by epoch, as JSON.

    Example: tensorage simulate yuma tests/vectors/yuma-classic.json
    """
    content = load(scenario)
    unknown = _read(content).unknown()
    result = simulate(content)
    if unknown:
        typer.echo(f"ignored in the scenario: {', '.join(unknown)}", err=True)
    json.dump(result, sys.stdout)
    typer.echo()
