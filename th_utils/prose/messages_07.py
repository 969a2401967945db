"""What each figure of chapter 07 shows, in one sentence: the beginning of its caption."""

from __future__ import annotations

import numpy as np

from th_utils.prose.intervals import series, signed

STEERED = "steered with the place told"


def gains(table: dict[str, list]) -> str:
    """Gains with the place told and without, controls beside them."""
    by_kind: dict[str, list[str]] = {}
    for kind, gain in zip(table["kind"], table["mean"], strict=True):
        by_kind.setdefault(kind, []).append(signed(100 * gain))
    gain = dict(zip(table["variant"], table["mean"], strict=True))
    subspaces, edit = (
        signed(100 * gain[name])
        for name in ("random subspaces, place told", "weights, random components")
    )
    return (
        f"Told the place of the answer, steering changes accuracy by {by_kind['steering'][0]} "
        f"points (random subspaces by {subspaces}); not told, steering changes it by "
        f"{by_kind['unaided'][0]}, edits of weights by {series(by_kind['weights'])} (of random "
        f"components by {edit})."
    )


def lengths(table: dict[str, list]) -> str:
    """Accuracy on the shortest and on the longest lists, as it is and after two repairs."""
    found = {
        (kind, n): mean
        for kind, n, mean in zip(table["kind"], table["length"], table["mean"], strict=True)
        if kind in ("clean", "steering", "weights")
    }
    ends = min(table["length"]), max(table["length"])
    clean, steered, edited = (
        [f"{found[kind, n]:.0%}" for n in ends] for kind in ("clean", "steering", "weights")
    )
    return (
        f"As it is, the model is right in {clean[0]} of the prompts with lists of {ends[0]} and in "
        f"{clean[1]} with lists of {ends[1]}; {STEERED}, in {series(steered)}; with edited "
        f"weights, in {series(edited)}."
    )


def places(table: dict[str, list], length: int) -> str:
    """At how many places of lists of one length the model is never right."""
    never: dict[str, int] = {}
    for kind, n, accuracy in zip(table["kind"], table["length"], table["accuracy"], strict=True):
        if n == length:
            never[kind] = never.get(kind, 0) + (accuracy == 0)
    return (
        f"In lists of {length}, at {never['clean'] or 'none'} of the {length} places the model as "
        f"it is names the item in none of the prompts drawn; {STEERED}, at "
        f"{never['steering'] or 'none'}, and with edited weights at {never['weights'] or 'none'}."
    )


def prices(table: dict[str, list]) -> str:
    """What each edit changes in the mean, by measurement."""
    change: dict[str, dict[str, list[float]]] = {}
    columns = (table[name] for name in ("kind", "measure", "before", "after"))
    for kind, measure, before, after in zip(*columns, strict=True):
        change.setdefault(kind, {}).setdefault(measure, []).append(after - before)
    means = {kind: {m: np.mean(x) for m, x in each.items()} for kind, each in change.items()}
    edit, control = means["weights"], means["control"]
    said = []
    for measure, moved in edit.items():
        name, unit = measure.split(", ")
        said.append(f"the {name} by {moved:+.2g} {unit} (a random edit by {control[measure]:+.2g})")
    return f"On average the weight edit changes {series(said)}."
