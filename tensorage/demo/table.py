"""The table of the demo: live on a terminal, a line an epoch elsewhere, JSON for a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ..receipts import Verdict
from .verdict import Judgement, Row

_MIB = 1 << 20


def table(rows: Sequence[Row], *, block: int, judgement: Judgement) -> Table:
    """The rows as a table, with the block and what is still missing underneath."""
    out = Table(title="a devnet, two validators, five miners", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    out.add_column("uid", justify="right")
    out.add_column("miner", no_wrap=True)
    for heading in ("committed", "proven", "score", "weight", "incentive", "emission"):
        out.add_column(heading, justify="right")
    out.add_column("verdicts")
    for row in rows:
        out.add_row(
            str(row.uid),
            row.name,
            _mib(row.committed_bytes),
            _each(row.proven_bytes, _mib),
            _each(row.scores, _mib),
            _each(row.weights, lambda weight: f"{weight:.3f}"),
            f"{row.incentive:.3f}",
            f"{row.emission:.3f}",
            _verdicts(row.verdicts),
            style="" if row.kind == "honest" else "yellow",
        )
    waiting = "as it should be" if judgement.ok else judgement.reason
    out.caption = f"committed, proven and score in MiB; block {block}: {waiting}"
    return out


def line(rows: Sequence[Row], *, block: int, judgement: Judgement) -> str:
    """The same in one line."""
    paid = " ".join(f"{row.name}={row.emission:.4g}" for row in rows)
    return f"block={block} emission: {paid} ({'as it should be' if judgement.ok else judgement.reason})"


def document(rows: Sequence[Row], judgement: Judgement, places: Mapping[str, Any]) -> dict[str, Any]:
    """The final table for a script; what validators differ in is their mean, and each one's own beside it."""
    return {
        "neurons": [_neuron(row) for row in rows],
        "verdict": {"ok": judgement.ok, "reason": judgement.reason},
        "paths": dict(places),
    }


def _neuron(row: Row) -> dict[str, Any]:
    figures = {"proven_bytes": row.proven_bytes, "score": row.scores, "weight": row.weights}
    return {
        "uid": row.uid,
        "name": row.name,
        "kind": row.kind,
        "hotkey": row.hotkey,
        "share": row.share,
        "committed_bytes": row.committed_bytes,
        **{what: fmean(values.values()) if values else 0.0 for what, values in figures.items()},
        "incentive": row.incentive,
        "emission": row.emission,
        "verdicts": dict(row.verdicts),
        "validators": {
            name: {
                **{what: values.get(name, 0.0) for what, values in figures.items()},
                "reason": row.reasons.get(name, ""),
            }
            for name in sorted({*row.weights, *row.scores})
        },
    }


def _each(values: Mapping[str, float], form: Callable[[float], str]) -> str:
    """What the validators agree on as it is shown, else the mean."""
    shown = {form(value) for value in values.values()}
    return shown.pop() if len(shown) == 1 else f"~{form(fmean(values.values()))}" if values else "-"


def _mib(size: float) -> str:
    return f"{size / _MIB:.1f}"


def _verdicts(counts: Mapping[str, int]) -> Text:
    return Text(", ").join(
        Text(f"{count} {verdict.word}", style="green" if verdict is Verdict.PASSED else "red")
        for verdict in Verdict
        if (count := counts.get(verdict.word, 0))
    )
