"""What repairs of recall gain: statistics over lists, and tables of them (chapter 07)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils import repair
from th_utils.bootstrap import Interval, bootstrap, crossed, crossed_mean, mean_interval
from th_utils.runs import CleanRun
from th_utils.tasks.lists import list_means

Runs = Mapping[int, CleanRun]  # by length
Hits = dict[int, Tensor]  # by length: 1 for each prompt whose right answer is the top token

LEAST = 0.01  # a gain of one point, the smallest that another is divided by


def per_list(hits: Hits) -> Float[np.ndarray, " list"]:
    """Accuracy of each list, lists of all lengths one after the other."""
    return np.concatenate([list_means(each, length) for length, each in hits.items()])


def gain(after: Hits, before: Hits, *, seed: int) -> Interval:
    """Rise in accuracy, mean over lists, interval over lists."""
    return mean_interval(per_list(after) - per_list(before), seed=seed)


def gain_share(part: Hits, whole: Hits, before: Hits, *, seed: int) -> Interval:
    """One gain as a share of another, interval over lists.

    Where the other is below `LEAST`, or is so in a resample, `LEAST` stands for it: the share of
    nothing has no value, and a large one says as much.
    """
    p, w = (per_list(hits) - per_list(before) for hits in (part, whole))
    return bootstrap(
        lambda a, b: a.mean(axis=1) / np.maximum(b.mean(axis=1), LEAST),
        [p, w],
        seed=seed,
        batched=True,
    )


def gain_of_draws(draws: Sequence[Hits], before: Hits, *, seed: int) -> Interval:
    """Rise in accuracy, mean over draws of a control and lists, interval over both."""
    gains = _by_draw(draws, before)
    return crossed(lambda *picked: crossed_mean(gains, *picked), gains.shape, seed=seed)


def share_of_draws(draws: Sequence[Hits], whole: Hits, before: Hits, *, seed: int) -> Interval:
    """The gain of a control as a share of another gain, interval over its draws and over lists.

    `LEAST` stands for the other where it is smaller, as in `gain_share`.
    """
    part, own = _by_draw(draws, before), per_list(whole) - per_list(before)

    def ratio(lists: np.ndarray, picked: np.ndarray) -> np.ndarray:
        of = np.maximum(lists @ own / lists.sum(-1), LEAST)
        return crossed_mean(part, lists, picked) / of

    return crossed(ratio, part.shape, seed=seed)


def _by_draw(draws: Sequence[Hits], before: Hits) -> Float[np.ndarray, "list draw"]:
    return np.stack([per_list(hits) - per_list(before) for hits in draws], axis=1)


def mean_hits(many: Sequence[Hits]) -> Hits:
    """Several draws of one control averaged prompt by prompt."""
    return {n: torch.stack([hits[n] for hits in many]).mean(0) for n in many[0]}


def gains_table(
    variants: Mapping[str, tuple[str, Hits | Sequence[Hits]]], before: Hits, *, seed: int
) -> dict:
    """Gain of every variant.

    Args:
        variants: kind ("steering", "turned", "unaided", "weights", "control" or "heads") and hits,
            by name; of a control that was drawn several times, those of each draw.
        before: the model as it is.
        seed: of the bootstrap.

    Returns:
        Columns: variant, kind, mean, low, high (accuracy gained, as a share).
    """
    rows = []
    for name, (kind, hits) in variants.items():
        of = gain if isinstance(hits, Mapping) else gain_of_draws
        rows.append((name, kind, *of(hits, before, seed=seed)))
    names = ("variant", "kind", "mean", "low", "high")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def lengths_table(
    panels: Mapping[str, Mapping[str, tuple[str, Hits]]], *, seed: int
) -> dict[str, list]:
    """Accuracy by length of the list.

    Args:
        panels: kind and hits by name, panel by panel.
        seed: of the bootstrap.

    Returns:
        Columns: panel, variant, kind, length, mean, low, high (interval over lists).
    """
    rows = [
        (panel, name, kind, length, *mean_interval(list_means(each, length), seed=seed))
        for panel, variants in panels.items()
        for name, (kind, hits) in variants.items()
        for length, each in hits.items()
    ]
    names = ("panel", "variant", "kind", "length", "mean", "low", "high")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def places_table(variants: Mapping[str, tuple[str, Hits]], runs: Runs) -> dict[str, list]:
    """Accuracy by place of the answer, for the lengths of `runs`.

    Returns:
        Columns: variant, kind, length, place (from 1), accuracy.
    """
    rows = []
    for name, (kind, hits) in variants.items():
        for length, run in runs.items():
            means = repair.means_by_place(hits[length], run.prompts.target, length)
            rows += [(name, kind, length, at + 1, mean) for at, mean in enumerate(means.tolist())]
    names = ("variant", "kind", "length", "place", "accuracy")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
