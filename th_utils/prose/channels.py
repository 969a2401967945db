"""Sentences of chapter 02."""

from __future__ import annotations

from typing import Any

import numpy as np

from th_utils.bootstrap import p_text, rank_correlation
from th_utils.roles import Roles
from th_utils.weights import AttentionWeights

NAMES = {
    "Q": "inhibition heads into the movers' queries",
    "V": "duplicate-token heads into the inhibition heads' values",
    "K": "previous-token heads into the induction heads' keys",
}
SCORES = {"whole": "whole matrices", "component": "single components"}


def rows(table: dict[str, list]) -> list[dict[str, Any]]:
    """The rows of a table of columns."""
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def furthest(known: list[dict[str, Any]]) -> str:
    """How far out the known senders are at most, for both scores of each type."""
    parts = []
    for kind, name in NAMES.items():
        z = {
            score: max(
                (k["z"] for k in known if (k["kind"], k["score"]) == (kind, score)), default=None
            )
            for score in SCORES
        }
        if z["whole"] is not None:
            parts.append(
                f"{name}: {z['whole']:.1f} standard deviations at most for whole matrices, "
                f"{z['component']:.1f} for single components"
            )
    return "; ".join(parts) or "no known pair of heads"


def reading(table: dict[str, list], figure: str) -> str:
    """What standard scores and areas say, type by type, with the furthest other head beside."""
    lines = []
    for kind, (whole, component) in _by_kind(table).items():
        if whole["auc"] is None:
            lines.append(f"- {NAMES[kind]}: this model has no such pair of heads.")
            continue
        lines.append(
            f"- {NAMES[kind]}: by its best component the furthest sender lies "
            f"{component['z']:.1f} standard deviations out, the furthest other head "
            f"{component['z_other']:.1f}; as wholes it is {whole['z']:.1f} and "
            f"{whole['z_other']:.1f}. The area under the curve is {component['auc']:.2f} by "
            f"component ({p_text(component['p'])}) and {whole['auc']:.2f} as a whole "
            f"({p_text(whole['p'])})."
        )
    return f"In numbers ({{numref}}`{figure}`):\n\n" + "\n".join(lines)


def note(row: dict[str, Any]) -> str:
    """What belongs to an area under the curve: its p-value and the numbers of heads."""
    return f"{p_text(row['p'])}, {row['senders']} senders, {row['readers']} readers"


def outlier(p: float) -> str:
    """How unusual the best standard score of the inhibition heads is among as many random heads."""
    return f"as many random heads have a component this far out: {p_text(p)}"


def areas(title: str, table: dict[str, list]) -> str:
    """The areas under the curve of one edition."""
    parts = [
        f"{row['kind']} {row['score']} {row['auc']:.2f}"
        for row in rows(table)
        if row["auc"] is not None
    ]
    return f"{title}: area under the curve " + (", ".join(parts) or "not defined")


def why(table: dict[str, list]) -> str:
    """Areas over all layers and within a sender's own, and distances, as a table."""
    lines = [
        "| type | score | area, all layers | area, same layer | furthest sender | furthest other |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows(table):
        if row["auc"] is not None:
            lines.append(
                f"| {row['kind']} | {SCORES[row['score']]} | {row['auc']:.2f} | "
                f"{row['auc_same_layer']:.2f} ({p_text(row['p_same_layer'])}) | {row['z']:.1f} | "
                f"{row['z_other']:.1f} |"
            )
    return "\n".join(lines)


def _by_kind(table: dict[str, list]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The rows of whole matrices and of components, by composition type."""
    by = {(row["kind"], row["score"]): row for row in rows(table)}
    return {kind: (by[kind, "whole"], by[kind, "component"]) for kind in NAMES}


def ranking(table: dict[str, list], role: str) -> str:
    """How many of the listed components belong to heads of one role, and the first of them."""
    at = [i for i, r in enumerate(table["role"]) if r == role]
    if not at:
        return f"none of the first {len(table['role'])} belongs to an {role} head"
    first = at[0]
    return (
        f"{len(at)} of the first {len(table['role'])} belong to {role} heads, first of them "
        f"{table['head'][first]}.{table['component'][first]} at rank {table['rank'][first]}"
    )


def rounding(table: dict[str, list]) -> str:
    """How far rounding moves best-component scores and the known senders' ranks."""
    exact, rounded = (np.array(table[name]) for name in ("exact", "rounded"))
    known = np.array(table["known"], dtype=bool)
    moved = np.abs(np.array(table["rounded_rank"])[known] - np.array(table["exact_rank"])[known])
    return (
        "Rank correlation of the scores before and after rounding "
        f"{rank_correlation(exact, rounded):.3f}; "
        f"mean absolute change {np.abs(rounded - exact).mean():.4f}; "
        "heads with the sender's role move by "
        f"{np.median(moved):.0f} places in the median and {moved.max()} at most among the heads "
        "before their reader"
    )


def model(weights: AttentionWeights, found: Roles) -> str:
    """The size of the model, and where its heads' roles come from."""
    source = (
        "measured, as {doc}`01_task` describes"
        if found.source == "measured"
        else "published ones, not measured here"
    )
    return (
        f"This edition's model has {weights.n_layers} layers of {weights.n_heads} heads with "
        f"{weights.d_head} components each. Its heads' roles are {source}."
    )


def best(row: dict[str, Any] | None, of: int, random_level: float, ceiling: float) -> str:
    """The best component of an inhibition head among all that could talk to the main mover."""
    if row is None:
        return "No inhibition head comes before the main mover."
    return (
        f"The best component of an inhibition head, {row['head']}.{row['component']}, is number "
        f"{row['rank']} of {of} with a score of {row['score']:.2f}, {row['z']:.1f} standard "
        f"deviations above the mean. A random direction would score {random_level:.2f}; no "
        f"direction can score above {ceiling:.2f} with this reader. "
        + (
            f"Of components of other heads, {row['rank'] - 1} score higher."
            if row["rank"] > 1
            else "No component of another head scores higher."
        )
    )
