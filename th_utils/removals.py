"""Components removed at the end position and everything after recomputed (chapter 03)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.bootstrap import mean_interval
from th_utils.components import SenderEffects, mover_score, scores_of
from th_utils.patching import ComponentEdit, head_outputs, remove, replay
from th_utils.roles import Head, label
from th_utils.runs import CleanRun
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi


def removed_in_turn(
    bridge: Any, run: CleanRun, svd: HeadSVD, sender: Head, mover: Head
) -> dict[str, Float[Tensor, "prompt component"]]:
    """Each component removed at the end position, everything after it recomputed.

    Returns:
        Falls against the clean run of the mover's inhibition score ("inhibition") and of the
        logit difference ("logit difference", nats), per prompt and component.
    """
    directions = svd.V[sender[0], sender[1]].mT
    output = head_outputs(bridge, run, *sender)
    delta = -(output @ directions.mT)[..., None] * directions
    after = replay(bridge, run, sender[0], delta, watch=[mover])
    return {
        "inhibition": mover_score(run, mover)[:, None] - scores_of(run, after.patterns[mover]),
        "logit difference": run.logit_difference[:, None] - after.logit_difference,
    }


def removed_together(
    bridge: Any, run: CleanRun, mover: Head, cases: Sequence[Sequence[ComponentEdit]]
) -> dict[str, Float[Tensor, "prompt case"]]:
    """Several heads edited at the end position at once, everything after recomputed, case by case.

    Returns:
        Falls against the clean run, as in `removed_in_turn`.
    """
    layer = min(edit.layer for edits in cases for edit in edits)
    nothing = run.resid.new_zeros(len(run.prompts), len(cases), run.resid.shape[-1])
    after = replay(bridge, run, layer, nothing, watch=[mover], edits=cases)
    return {
        "inhibition": mover_score(run, mover)[:, None] - scores_of(run, after.patterns[mover]),
        "logit difference": run.logit_difference[:, None] - after.logit_difference,
    }


def random_components(
    svd: HeadSVD, picks: dict[Head, list[int]], *, seed: int
) -> list[ComponentEdit]:
    """Removal of as many other components of the same heads, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    edits = []
    for head, chosen in picks.items():
        others = [k for k in range(svd.S.shape[-1]) if k not in chosen]
        drawn = torch.randperm(len(others), generator=generator)[: len(chosen)]
        edits.append(remove(svd, *head, [others[i] for i in drawn.tolist()]))
    return edits


def in_turn_table(
    measured: Sequence[SenderEffects], full: Sequence[dict[str, Float[Tensor, "prompt component"]]]
) -> dict[str, list]:
    """Each component's mean effect in the mover's query alone and with everything recomputed.

    Returns:
        Columns: head, component, first (the leading component, as chosen), direct, full (falls of
        the mover's inhibition score), logit (fall of the logit difference, nats).
    """
    rows = []
    for m, f in zip(measured, full, strict=True):
        means = [x.mean(0).tolist() for x in (m.effects, f["inhibition"], f["logit difference"])]
        rows += [
            (label(m.sender), k, k == m.picks[0], *values)
            for k, values in enumerate(zip(*means, strict=True))
        ]
    names = ("head", "component", "first", "direct", "full", "logit")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


@dataclass(frozen=True)
class Removals:
    """Leading components of several heads removed, and as many random others, fully recomputed."""

    table: dict[str, list]
    clean: Float[np.ndarray, " pair"]  # the main mover's inhibition score
    leading: Float[np.ndarray, " pair"]  # its fall, leading components of all heads removed
    random: Float[np.ndarray, "pair draw"]  # its fall, as many random other components removed


def removals(
    bridge: Any,
    run: CleanRun,
    svd: HeadSVD,
    mover: Head,
    picks: dict[Head, list[int]],
    *,
    draws: int,
    seed: int,
) -> Removals:
    """Remove leading components at the end position and recompute everything after.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        run: clean run of the split reported.
        svd: SVD of the OV matrices.
        mover: the reader whose inhibition score is followed.
        picks: leading components of each inhibition head.
        draws: number of random draws of other components.
        seed: of those, and of the bootstrap.

    Returns:
        The table has columns removed, control (bool), and mean, low, high of what is left of the
        mover's inhibition score and of the logit difference ("inhibition mean", ...).
    """

    clean = {
        "inhibition": ioi.pair_means(mover_score(run, mover)),
        "logit difference": ioi.pair_means(run.logit_difference),
    }
    edits = {head: remove(svd, *head, components) for head, components in picks.items()}
    names = [", ".join(f"{label(head)}.{k}" for k in picks[head]) for head in edits]
    cases = [*([edit] for edit in edits.values()), list(edits.values())]
    cases += [random_components(svd, picks, seed=seed + 1 + i) for i in range(draws)]
    falls = {
        name: ioi.pair_means(fall)
        for name, fall in removed_together(bridge, run, mover, cases).items()
    }
    fixed = len(edits) + 1  # cases before the random draws

    def left(case: int | None) -> dict[str, np.ndarray]:
        if case is None:
            return {name: clean[name] - fall[:, fixed:].mean(1) for name, fall in falls.items()}
        return {name: clean[name] - fall[:, case] for name, fall in falls.items()}

    rows = [("nothing", False, clean)]
    rows += [(name, False, left(case)) for case, name in enumerate(names)]
    rows.append(("all of these", False, left(fixed - 1)))
    rows.append((f"random others ({draws} draws)", True, left(None)))
    table: dict[str, list] = {"removed": [r[0] for r in rows], "control": [r[1] for r in rows]}
    for name in clean:
        intervals = [mean_interval(row[2][name], seed=seed) for row in rows]
        for end, i in (("mean", 0), ("low", 1), ("high", 2)):
            table[f"{name} {end}"] = [interval[i] for interval in intervals]
    return Removals(
        table=table,
        clean=clean["inhibition"],
        leading=falls["inhibition"][:, fixed - 1],
        random=falls["inhibition"][:, fixed:],
    )
