"""How well a model recalls the item of a list that was not mentioned again (chapter 06)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from th_utils import checks
from th_utils.bootstrap import Interval, mean_interval
from th_utils.errors import CompanionError
from th_utils.list_trees import list_run
from th_utils.roles import Head
from th_utils.runs import CleanRun
from th_utils.steering import Axes, coordinates
from th_utils.tasks.lists import ListPrompts

BATCH = 100  # prompts whose keys and values are kept at once


@dataclass(frozen=True)
class Recalled:
    """What a model does at the end of list prompts, and what was measured on the way."""

    prompts: ListPrompts
    logits: Float[Tensor, "prompt item"]
    correct: Bool[Tensor, " prompt"]  # the item left out is the top token of the vocabulary
    coordinates: Float[Tensor, "prompt axis"]  # of clean outputs along the axes
    looks: Float[Tensor, "prompt item"]  # the mover's attention to the items' first mentions

    @property
    def length(self) -> int:
        """Items of a list."""
        return self.prompts.length

    @property
    def listed(self) -> Bool[Tensor, " prompt"]:
        """The item left out is the first among the items of its list."""
        return self.logits.argmax(-1) == self.prompts.target

    def lists(self, per_prompt: Tensor) -> Float[np.ndarray, "list place *rest"]:
        """What was measured prompt by prompt, by list and place of the item left out."""
        return per_prompt.double().unflatten(0, (-1, self.length)).cpu().numpy()


def recall(bridge: Any, prompts: ListPrompts, axes: Axes, mover: Head) -> Recalled:
    """Run list prompts and keep what their end position shows.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        prompts: whole lists, as `tasks.lists.prompts` draws them.
        axes: whose coordinates are read.
        mover: whose attention is read.

    Raises:
        CompanionError: prompts that are no whole lists, a mover or axes that the model does not
            have, or a model that replay does not know.
    """
    check_heads(bridge, [mover, *axes.heads])
    batch = max(1, BATCH // prompts.length) * prompts.length  # whole lists
    parts = [
        recalled(bridge, list_run(bridge, each), axes, mover) for each in prompts.batches(batch)
    ]
    names = ("logits", "correct", "coordinates", "looks")
    return Recalled(prompts, *(torch.cat([getattr(p, name) for p in parts]) for name in names))


def recalled(bridge: Any, run: CleanRun, axes: Axes, mover: Head) -> Recalled:
    """What a clean run of list prompts shows at its end."""
    return Recalled(
        prompts=run.prompts,
        logits=run.logits,
        correct=run.correct,
        coordinates=coordinates(bridge, run, axes),
        looks=run.pattern["end"][mover[0]][:, mover[1]].gather(-1, run.prompts.items),
    )


def check_heads(bridge: Any, heads: Sequence[Head]) -> None:
    """Refuse heads that a model does not have."""
    for layer, head in heads:
        checks.index("layer", layer, bridge.cfg.n_layers)
        checks.index("head", head, bridge.cfg.n_heads)


def over_lists(
    statistic: Callable[..., float],
    groups: Sequence[Float[np.ndarray, "_ ..."]],
    *,
    seed: int,
    n_boot: int = 2000,
) -> Interval:
    """95% bootstrap interval of a statistic of several groups of lists.

    Lists of different lengths or splits are independent draws, so each group is resampled by
    itself (Efron and Tibshirani 1993, section 8.3, the two-sample problem).

    Args:
        statistic: called with the groups, resampled along their first axis, in order.
        groups: what was measured, list by list.
        seed: of the resampling.
        n_boot: number of resamples.

    Raises:
        CompanionError: a group without lists.

    >>> over_lists(lambda a, b: a.mean() - b.mean(), [np.ones(3), np.zeros(5)], seed=0)
    Interval(value=1.0, low=1.0, high=1.0)
    """
    if not groups or not all(len(group) for group in groups):
        raise CompanionError("an interval over lists needs at least one list of each kind")
    rng = np.random.default_rng(seed)
    drawn = np.empty(n_boot)
    for i in range(n_boot):
        picked = [group[rng.integers(0, len(group), len(group))] for group in groups]
        drawn[i] = statistic(*picked)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(statistic(*groups)), float(low), float(high))


def accuracy_table(runs: Sequence[tuple[str, Recalled]], *, seed: int) -> dict[str, list]:
    """Accuracy of runs, each named by its order of mention, over the vocabulary and among items.

    Returns:
        Columns: order, length, lists, among ("vocabulary", "listed"), mean, low, high (95%,
        over lists), chance (of a guess among the items).
    """
    rows = []
    for order, run in runs:
        for among, right in (("vocabulary", run.correct), ("listed", run.listed)):
            by_list = run.lists(right).mean(1)
            interval = mean_interval(by_list, seed=seed)
            rows.append((order, run.length, len(by_list), among, *interval, 1 / run.length))
    return _table(("order", "length", "lists", "among", "mean", "low", "high", "chance"), rows)


def place_table(runs: Sequence[tuple[str, Recalled]], *, seed: int) -> dict[str, list]:
    """Accuracy by the place of the item left out.

    Returns:
        Columns: order, length, place (from 1), mean, low, high (over the full vocabulary, 95%,
        over lists), listed (mean among the items).
    """
    rows = []
    for order, run in runs:
        right, listed = run.lists(run.correct), run.lists(run.listed)
        for place in range(run.length):
            interval = mean_interval(right[:, place], seed=seed)
            rows.append((order, run.length, place + 1, *interval, listed[:, place].mean()))
    return _table(("order", "length", "place", "mean", "low", "high", "listed"), rows)


def fall_with_length(short: Recalled, long: Recalled, *, seed: int) -> Interval:
    """Accuracy over the full vocabulary, shorter lists less longer ones."""
    groups = [run.lists(run.correct).mean(1) for run in (short, long)]
    return over_lists(lambda a, b: a.mean() - b.mean(), groups, seed=seed)


def spread_of_places(
    chosen_on: Recalled, reported_on: Recalled, *, seed: int
) -> tuple[Interval, int, int]:
    """Accuracy at the best place less that at the worst, both chosen on another run.

    Returns:
        The difference, and the two places, from 0; of places that are equally good the first.

    Raises:
        CompanionError: lists of two lengths.
    """
    if chosen_on.length != reported_on.length:
        raise CompanionError(
            f"places of lists of {chosen_on.length} items say nothing of lists of "
            f"{reported_on.length}"
        )
    best, worst = (places[0] for places in extremes(chosen_on))
    right = reported_on.lists(reported_on.correct)
    return mean_interval(right[:, best] - right[:, worst], seed=seed), best, worst


def extremes(run: Recalled) -> tuple[list[int], list[int]]:
    """The places, from 0, at which accuracy is best and worst; more than one where equally so."""
    by_place = run.lists(run.correct).mean(0)
    best, worst = (np.flatnonzero(by_place == end) for end in (by_place.max(), by_place.min()))
    return best.tolist(), worst.tolist()


def cost_of_shuffling(
    pairs: Sequence[tuple[Recalled, Recalled]], *, seed: int
) -> tuple[Interval, list[Interval]]:
    """Accuracy with repeats in list order less that with repeats shuffled, on the same lists.

    Args:
        pairs: the two runs of each length.
        seed: of the bootstrap.

    Returns:
        The mean over lengths, and each length's own.

    Raises:
        CompanionError: the two runs of a pair are not on the same lists.
    """
    for plain, shuffled in pairs:
        if not torch.equal(plain.prompts.answers, shuffled.prompts.answers):
            raise CompanionError("the order of mention is compared on the same lists")
    falls = [
        plain.lists(plain.correct.double() - shuffled.correct.double()).mean(1)
        for plain, shuffled in pairs
    ]
    whole = over_lists(lambda *each: float(np.mean([x.mean() for x in each])), falls, seed=seed)
    return whole, [mean_interval(fall, seed=seed) for fall in falls]


def _table(names: Sequence[str], rows: Sequence[tuple]) -> dict[str, list]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def category_table(runs: Sequence[tuple[str, Recalled]], *, seed: int) -> dict[str, list]:
    """Accuracy over the full vocabulary for lists of nouns of one category.

    Returns:
        Columns: category, length, mean, low, high (95%, over lists).
    """
    rows = [
        (category, run.length, *mean_interval(run.lists(run.correct).mean(1), seed=seed))
        for category, run in runs
    ]
    return _table(("category", "length", "mean", "low", "high"), rows)


def number_of_lists(length: int, prompts: int) -> int:
    """Lists of a length that make about so many prompts: as many of each of the four templates.

    >>> number_of_lists(3, 48), number_of_lists(10, 48), number_of_lists(20, 8)
    (16, 4, 4)
    """
    templates = 4  # of each half
    return templates * max(1, round(prompts / (templates * length)))
