"""The part of the page of timed kernels that says how estimates do on a trained model.

Shown from what `python -m benchmarks.trained` wrote; nothing is measured when the book is built.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from th_utils.build import pages
from th_utils.plots.benchmarks import significant

MISSING = "Nothing is recorded yet of a trained model; `python -m benchmarks.trained` measures it."
STATISTICS = {
    "correlation": "Correlation",
    "rank_correlation": "of ranks",
    "slope": "Slope",
    "same_sign": "Equal signs",
}
EXACT = {"attribution patching": "activation patching", "direct effects": "path patching"}


def trained(path: Path) -> str:
    """The table and a sentence on what was measured.

    Args:
        path: of the results file, which need not be there.
    """
    if not path.exists():
        return MISSING
    found = json.loads(path.read_text(encoding="utf-8"))
    return f"{table(found['table'])}\n\n{measured(found)}"


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each estimate; direct effects by thirds of the layers and by kinds besides."""
    head = ["Estimate of", "Readers", *STATISTICS.values(), "Effects"]
    body = [
        [
            f"{EXACT[row['estimate']]}, by {row['estimate']}",
            _readers(row),
            *(_interval(row[name]) for name in STATISTICS),
            f"{row['cells']:,}",
        ]
        for row in rows
        if row["third"] is None or row["kind"] is None
    ]
    return pages.table(head, body)


def measured(found: dict[str, Any]) -> str:
    """What the table is of, what of it single prompts say, and what either way cost."""
    asked, seconds = found["parameters"], found["seconds"]
    whole = {row["estimate"]: row for row in found["table"] if not row["third"] and not row["kind"]}
    attributed, direct = (_within(whole[name]) for name in EXACT)
    readers = len(found["readers"])
    return (
        f"Measured on `{found['edition']}`: {asked['prompts']} prompts, effects averaged over "
        f"them, {100 * asked['level']:g}% bootstrap intervals over prompts; {readers} of "
        f"{found['all_readers']} readers, {asked['readers_of_each_third']} drawn from each third "
        f"of the layers, which the intervals do not cover; signs are those of the "
        f"{asked['largest']} largest exact effects. Within single prompts the correlation is on "
        f"average {attributed} by attribution patching and {direct} by direct effects. The "
        f"exact sweeps took {_clock(seconds['activation patching'])} and "
        f"{_clock(seconds['path patching'])} of processor time, the latter for these readers "
        f"alone; the estimates {_clock(seconds['attribution patching'])} and "
        f"{_clock(seconds['direct effects'])}, for all."
    )


def _readers(row: dict[str, Any]) -> str:
    if row["estimate"] != "direct effects":
        return ""
    if row["third"]:
        return f"{row['third']} third"
    return f"all, into {row['kind']}" if row["kind"] else "all"


def _within(row: dict[str, Any]) -> str:
    """The mean over prompts, and how far single prompts lie from it."""
    low, high = min(row["each_prompt"]), max(row["each_prompt"])
    return f"{_interval(row['within_prompts'])} (from {low:.2f} to {high:.2f})"


def _interval(values: list[float]) -> str:
    # Adding zero takes the sign from a zero that was rounded.
    value, low, high = (f"{round(x, 2) + 0.0:.2f}" for x in values)
    return f"{value} [{low}, {high}]"


def _clock(seconds: float) -> str:
    return f"{significant(seconds, 2)} s"
