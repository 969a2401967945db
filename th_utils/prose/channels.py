"""Sentences of chapter 02."""

from __future__ import annotations

from typing import Any

import numpy as np

from th_utils.bootstrap import p_text, rank_correlation
from th_utils.prose.intervals import series, span
from th_utils.results import public
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


INTO = {"Q": "queries", "V": "values", "K": "keys"}


def of_gpt2(message: str) -> str:
    """A message about GPT-2 small's record beside another edition.

    >>> of_gpt2("None of it is so.")
    'In GPT-2 small, none of it is so.'
    """
    return f"In GPT-2 small, {message[0].lower()}{message[1:]}"


def known_message(known: list[dict[str, Any]]) -> str:
    """The rank of the known sender that is furthest out, kind by kind, by both scores."""

    def ranks(score: str) -> list[str]:
        at = [
            max(of, key=lambda k: k["z"])
            for kind in INTO
            if (of := [k for k in known if (k["kind"], k["score"]) == (kind, score)])
        ]
        return [f"{k['rank']} of {k['of']:,}" for k in at]

    into = [f"into {name}" for kind, name in INTO.items() if kind in {k["kind"] for k in known}]
    if not into:
        return "This model has no known pair of heads."
    first, *others = (f"{at} {where}" for at, where in zip(ranks("component"), into, strict=True))
    components = series([first.replace(" into", " components into"), *others])
    return (
        f"The known senders furthest out rank {components}, and {series(ranks('whole'))} as whole "
        "matrices."
    )


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


def areas_message(tables: dict[str, dict[str, list]]) -> str:
    """In how many kinds of talk the known senders lie beyond the null's 95%, edition by edition."""
    whole, component, parts = [], [], []
    for title, table in tables.items():
        name = public(title.partition("\n")[0])
        out, best = (
            [row["auc"] > row["null_high"] for row in rows(table) if _measured(row, score)]
            for score in SCORES
        )
        if not out:
            parts.append(f"there is no known pair of heads in {name}")
            continue
        kinds = "" if whole else " kinds of talk"
        whole.append(f"in {sum(out)} of {len(out)}{kinds} in {name}")
        component.append(f"in {sum(best)} of {len(best)}")
    if whole:
        parts.insert(0, f"by single components, {series(component)}")
        parts.insert(0, f"by whole matrices, known senders stand out beyond chance {series(whole)}")
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def _measured(row: dict[str, Any], score: str) -> bool:
    return row["score"] == score and row["auc"] is not None


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


def ranking_message(table: dict[str, list], role: str, reader: str) -> str:
    """How many of the components that one query is most open to belong to heads of one role."""
    n, mine = len(table["role"]), [i for i, r in enumerate(table["role"]) if r == role]
    some = f"of the {n} components that the query of mover {reader} is most open to"
    if not mine:
        return f"None {some} belongs to an {role} head."
    first = mine[0]
    name = f"{table['head'][first]}.{table['component'][first]}, at rank {table['rank'][first]}"
    if len(mine) == 1:
        return f"One {some} belongs to an {role} head, {name}."
    return f"{len(mine)} {some} belong to {role} heads, the first of them {name}."


def ranking_alt(table: dict[str, list], role: str, reader: str) -> str:
    """The same, and all these components with their scores."""
    columns = (table[name] for name in ("head", "component", "score", "role"))
    listed = ", ".join(
        f"{head}.{component} {score:.2f}" + ("" if of == "other" else f" ({of})")
        for head, component, score, of in zip(*columns, strict=True)
    )
    return f"{ranking_message(table, role, reader)} In order, with their scores: {listed}."


def heads_message(table: dict[str, list], mover: str, random_level: float) -> str:
    """How far the best component of each head stands above a random direction, and the middle."""
    each = _scores(table).values()
    if not each:
        return "This model has no inhibition head before the main mover."
    best, middle = (
        span(min(of_heads) / random_level, max(of_heads) / random_level, ".1f")
        for of_heads in ([take(scores) for scores in each] for take in (max, np.median))
    )
    return (
        f"With the query of mover {mover} the best component of an inhibition head scores {best} "
        f"times as high as a random direction, the median component {middle} times."
    )


def heads_alt(table: dict[str, list], mover: str, random_level: float) -> str:
    """The same, and the two best components of each head."""
    parts = []
    for head, scores in _scores(table).items():
        first, second = sorted(range(len(scores)), key=lambda k, of=scores: -of[k])[:2]
        parts.append(
            f"in head {head} components {first} ({scores[first]:.2f}) and {second} "
            f"({scores[second]:.2f})"
        )
    best = f" The two highest scores: {'; '.join(parts)}." if parts else ""
    return heads_message(table, mover, random_level) + best


def _scores(table: dict[str, list]) -> dict[str, list[float]]:
    """The scores of each head's components, in their order."""
    found: dict[str, list[float]] = {}
    for head, score in zip(table["head"], table["composition"], strict=True):
        found.setdefault(head, []).append(score)
    return found


def rounding_message(table: dict[str, list]) -> str:
    """How far rounding leaves scores in order, and the known senders' ranks where they were."""
    moved = _moved(table)
    return (
        "Scores before and after rounding to four bits have a rank correlation of "
        f"{rank_correlation(np.array(table['exact']), np.array(table['rounded'])):.3f}; known "
        f"senders move by {_places(float(np.median(moved)))} in the median, {moved.max()} at most."
    )


def rounding(table: dict[str, list]) -> str:
    """The same, and how far rounding moves best-component scores."""
    change = np.abs(np.array(table["rounded"]) - np.array(table["exact"])).mean()
    return (
        f"{rounding_message(table)} Places are counted among the heads before the reader; the mean "
        f"absolute change of a score is {change:.4f}"
    )


def _moved(table: dict[str, list]) -> np.ndarray:
    known = np.array(table["known"], dtype=bool)
    return np.abs(np.array(table["rounded_rank"])[known] - np.array(table["exact_rank"])[known])


def _places(n: float) -> str:
    return f"{n:g} place{'s' * (n != 1)}"


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
        f"{row['rank']} of {of:,} with a score of {row['score']:.2f}, {row['z']:.1f} standard "
        f"deviations above the mean. A random direction would score {random_level:.2f}; no "
        f"direction can score above {ceiling:.2f} with this reader. "
        + (
            f"Of components of other heads, {row['rank'] - 1} score higher."
            if row["rank"] > 1
            else "No component of another head scores higher."
        )
    )
