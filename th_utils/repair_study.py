"""Repairs compared: searched on one half of nouns and templates, reported on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import repair, unaided
from th_utils.list_trees import TreeRun, edited_answers
from th_utils.patching import ComponentEdit, Replayed
from th_utils.repair import Chosen, How, Searched
from th_utils.repair_gains import Hits
from th_utils.roles import Head
from th_utils.runs import CleanRun
from th_utils.steering import Axes, coordinates

Runs = Mapping[int, CleanRun]  # by length

OWN_WEIGHTS = (0.25, 0.5, 0.75, 1.0)  # above zero: a place has to have a point of its own


class Option(NamedTuple):
    """One way to steer."""

    axes: int  # how many
    how: How
    extent: float  # of the region searched, in natural ranges


@dataclass(frozen=True)
class Steering:
    """Points found for every length, and how."""

    axes: Axes
    option: Option
    own: float  # weight of a place's own lists in the choice of its point, see `repair.pooled`
    points: dict[int, Chosen]
    scores: dict[Option, float]  # of the options compared, lists left out in turn


def reaches(bridge: Any, runs: Runs, axes: Axes, extent: float) -> dict[int, Tensor]:
    """How far out to search, by length: the range of these axes, see `repair.reach`."""
    return {
        length: repair.reach(coordinates(bridge, run, axes), extent)[:1]
        for length, run in runs.items()
    }


def search(
    bridge: Any,
    runs: Runs,
    axes: Axes,
    options: Sequence[Option],
    *,
    points: int,
    rounds: int,
    seed: int,
    like: Axes | None = None,
) -> Steering:
    """The best of several ways to steer, and its points for each length and place.

    Options are compared on the shortest, a middle and the longest lists, and the best of them is
    then searched on the rest. Options, and how far places are told apart, are judged by lists left
    out in turn.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        runs: clean runs to search on, by length.
        axes: of which each option takes the first few.
        options: to compare.
        points, rounds, seed: see `repair.search`.
        like: axes whose natural range says how far to search; `axes` when None.
    """
    lengths = sorted(runs)
    trial = sorted({lengths[0], lengths[len(lengths) // 2], lengths[-1]})

    def found(option: Option, length: int) -> Searched:
        run, some = runs[length], axes[: option.axes]
        far = reaches(bridge, {length: run}, like or axes, option.extent)[length]
        natural = coordinates(bridge, run, some)
        within = repair.region(natural, option.how, far.expand(len(some)))
        return repair.search(
            bridge, run, some, within, how=option.how, points=points, rounds=rounds, seed=seed
        )

    def judged(each: Mapping[int, Searched], own: float) -> float:
        return float(np.mean([repair.left_out_score(s.scores, own) for s in each.values()]))

    tried = {option: {length: found(option, length) for length in trial} for option in options}
    scores = {
        option: max(judged(each, own) for own in OWN_WEIGHTS) for option, each in tried.items()
    }
    best = max(scores, key=lambda option: scores[option])
    every = {n: tried[best][n] if n in trial else found(best, n) for n in lengths}
    own = max(OWN_WEIGHTS, key=lambda weight: judged(every, weight))
    points_of = {length: repair.choose(each, own) for length, each in every.items()}
    return Steering(axes[: best.axes], best, own, points_of, scores)


def clean_hits(runs: Runs) -> Hits:
    """The model as it is."""
    return {length: run.correct.double() for length, run in runs.items()}


def among_items(runs: Runs) -> dict[int, float]:
    """Accuracy of the model as it is when only the listed items may be named, by length."""
    return {
        length: float((run.logits.argmax(-1) == run.prompts.target).double().mean())
        for length, run in runs.items()
    }


def told(bridge: Any, runs: Runs, steering: Steering) -> Hits:
    """Steered to the point of the place that the answer has."""
    return {
        length: _hits(
            bridge, run, steering, steering.points[length].by_place[run.prompts.target][None]
        )[:, 0]
        for length, run in runs.items()
    }


def natural_points(bridge: Any, searched: Runs, runs: Runs, axes: Axes) -> Hits:
    """Steered, told the place, to where that place has its coordinates by itself, in the mean."""
    found = {}
    for length, run in runs.items():
        known = searched[length]
        centres = repair.means_by_place(
            coordinates(bridge, known, axes), known.prompts.target, length
        )
        after = repair.put(bridge, run, axes, centres[run.prompts.target][None], "replace")
        found[length] = (after.top[:, 0] == run.prompts.right).double()
    return found


def untold(
    bridge: Any, searched: Runs, runs: Runs, steering: Steering, movers: Sequence[Head]
) -> tuple[dict[str, Hits], str]:
    """Steered without being told the place, by every rule, and the rule that did best where chosen.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        searched: runs of the split that rules learn from and are chosen on.
        runs: of the split reported.
        steering: what the search found.
        movers: whose attention is read, the main one first.

    Returns:
        Hits on `runs` by rule, and the name of the rule chosen on `searched`.
    """
    reported: dict[str, Hits] = {}
    chosen_by: dict[str, list[float]] = {}
    for length, run in runs.items():
        known, points = searched[length], steering.points[length]
        natural = coordinates(bridge, known, steering.axes)
        mean, how = natural.mean(0), steering.option.how
        shown = unaided.readings(bridge, known, movers, steering.axes)
        here = unaided.readings(bridge, run, movers, steering.axes)
        learned = unaided.guesses_left_out(shown, known.prompts)
        tried = unaided.rules(learned, natural, mean, points, how)
        for name, score in zip(
            tried, _scores(bridge, known, steering, torch.stack(list(tried.values()))), strict=True
        ):
            chosen_by.setdefault(name, []).append(score)
        guessed = unaided.guesses(here, shown, known.prompts.target, length)
        natural = coordinates(bridge, run, steering.axes)
        rules = unaided.rules(guessed, natural, mean, points, how)
        hits = _hits(bridge, run, steering, torch.stack(list(rules.values())))
        for at, name in enumerate(rules):
            reported.setdefault(name, {})[length] = hits[:, at]
    best = max(chosen_by, key=lambda name: float(np.mean(chosen_by[name])))
    return reported, best


def edited(bridge: Any, runs: Mapping[int, TreeRun], edits: Sequence[ComponentEdit]) -> Hits:
    """With edited weights."""
    return {
        length: (edited_answers(bridge, run, edits).top == run.prompts.right).double()
        for length, run in runs.items()
    }


def _replayed(
    bridge: Any, run: CleanRun, steering: Steering, points: Float[Tensor, "case prompt axis"]
) -> Replayed:
    return repair.put(bridge, run, steering.axes, points, steering.option.how)


def _hits(
    bridge: Any, run: CleanRun, steering: Steering, points: Float[Tensor, "case prompt axis"]
) -> Float[Tensor, "prompt case"]:
    top = _replayed(bridge, run, steering, points).top
    return (top == run.prompts.right[:, None]).double()


def _scores(
    bridge: Any, run: CleanRun, steering: Steering, points: Float[Tensor, "case prompt axis"]
) -> list[float]:
    return repair.scores(_replayed(bridge, run, steering, points), run.prompts).mean(0).tolist()
