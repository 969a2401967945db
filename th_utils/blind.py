"""How well a score made without looking finds the pairs that matter: statistics over all pairs.

A *hit* is a pair among the hundredth with the largest effects of its kind. Scores are judged by
the share of hits among the k highest (precision), by what that is over the share among all pairs
(lift), by average precision over all k, and by the rank correlation of score and effect.

Chance is what is left when scores are dealt out again. Pairs hang together: a reader that is easily
moved has many hits, and a head that says much writes with many components. So scores are dealt out
among the components that one reader could read (which keeps how easily readers are moved), or
earlier heads change places with all of their components (which keeps both). Intervals resample
prompts, and say how far the effects would come out otherwise on other prompts of the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from th_utils import checks
from th_utils.bootstrap import Interval
from th_utils.errors import CompanionError
from th_utils.pairs import Pairs

SHARE = 0.01  # of all pairs are hits
DEPTHS = (20, 50, 100, 200, 500, 1000, 2000, 5000)
# Pairs whose effects are resampled to find where the hits begin: this many times as many as there
# are hits. Those below never get there.
_CONTENDERS = 4
_SAMPLE = 20_000  # pairs whose ranks are taken anew in each resample


def hits(effect: Float[Tensor, " pair"], share: float = SHARE) -> Bool[Tensor, " pair"]:
    """Which pairs are among this share of the largest effects; one at least.

    >>> hits(torch.tensor([0.1, 0.5, 0.2, 0.4]), 0.5)
    tensor([False,  True, False,  True])
    """
    checks.finite(effect=effect)
    mask = torch.zeros_like(effect, dtype=torch.bool)
    mask[highest(effect, max(1, round(share * len(effect))))] = True
    return mask


def highest(score: Float[Tensor, " pair"], k: int) -> Int[Tensor, " k"]:
    """The k highest scores, the highest first; all where there are no more."""
    return torch.topk(score, min(k, len(score))).indices


def ranks(values: Float[Tensor, " pair"]) -> Float[Tensor, " pair"]:
    """Ranks from 0, ties sharing their mean, in float64.

    >>> ranks(torch.tensor([0.3, 0.1, 0.3])).tolist()
    [1.5, 0.0, 1.5]
    """
    found = values.cpu().numpy()
    order = np.argsort(found)  # twice as fast as torch's on the CPU
    ordered = found[order]
    begin = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1], True])
    mean = (begin[:-1] + begin[1:] - 1) / 2
    placed = np.empty(len(found))
    placed[order] = np.repeat(mean, np.diff(begin))
    return torch.from_numpy(placed).to(values.device)


def correlation(x: Float[Tensor, "*x pair"], y: Float[Tensor, "*y pair"]) -> Tensor:
    """Correlation along the last axis: of ranks, Spearman's. NaN where one of them is constant."""
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / ((x * x).sum(-1) * (y * y).sum(-1)).sqrt()


def precision(
    order: Int[Tensor, " top"], hit: Bool[Tensor, " pair"], depths: Sequence[int] = DEPTHS
) -> Float[np.ndarray, " depth"]:
    """Share of hits among the first k of an order, for each depth k.

    >>> precision(torch.tensor([2, 0, 1]), torch.tensor([False, True, True]), (1, 3))
    array([1.        , 0.66666667])
    """
    checked(depths, len(order))
    found = hit[order].double().cumsum(0)
    return np.array([float(found[k - 1]) / k for k in depths])


def checked(depths: Sequence[int], of: int) -> None:
    """Refuse depths that are not there."""
    if not depths or min(depths) < 1 or max(depths) > of:
        raise CompanionError(f"depths {list(depths)}: expected some of 1 to {of}")


def average_precision(rank: Float[Tensor, " pair"], hit: Bool[Tensor, " pair"]) -> float:
    """Precision at the place of each hit, averaged: 1 when all hits come first; from `ranks`.

    >>> average_precision(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([True, False, True]))
    0.8333333333333333
    """
    place = torch.sort(len(rank) - rank[hit]).values
    return float((torch.arange(1, len(place) + 1, device=rank.device) / place.double()).mean())


@dataclass(frozen=True)
class Chance:
    """Shares of hits among the first k when scores are dealt out again, draw by draw."""

    depths: tuple[int, ...]
    within: Float[np.ndarray, "draw depth"]  # among the components that a reader could read
    heads: Float[np.ndarray, "draw depth"]  # whole heads replaced by other earlier ones

    def p(self, found: Float[np.ndarray, " depth"], null: str) -> Float[np.ndarray, " depth"]:
        """How often chance does as well, one-sided; never zero (Phipson and Smyth 2010)."""
        drawn = getattr(self, null)
        return (1 + (drawn >= found - 1e-9).sum(0)) / (1 + len(drawn))


def chance(
    pairs: Pairs,
    order: Int[Tensor, " top"],
    hit: Bool[Tensor, " pair"],
    *,
    seed: int,
    depths: Sequence[int] = DEPTHS,
    draws: int = 1000,
) -> Chance:
    """What the first k of an order would find by chance.

    Dealing scores out among what one reader could read leaves the number of its pairs among the
    first k as it is, and makes the number of hits among these hypergeometric: it is drawn directly.
    For the other null each head is replaced, for each reader, by a head drawn from those before it
    (with replacement: two may get the same, which widens the null a little where few come before).
    """
    checked(depths, len(order))
    rng = np.random.default_rng(seed)
    index, mask = order.cpu().numpy(), hit.cpu().numpy()
    reader = pairs.reader(index)
    good = np.zeros(pairs.layers * pairs.heads, dtype=np.int64)
    size = np.zeros_like(good)
    for layer, head, place in pairs.readers():
        at = layer * pairs.heads + head
        good[at], size[at] = mask[place].sum(), place.stop - place.start
    within = np.empty((draws, len(depths)))
    for i, k in enumerate(depths):
        picked = np.bincount(reader[:k], minlength=len(good))
        some = picked > 0
        drawn = rng.hypergeometric(
            good[some], (size - good)[some], picked[some], size=(draws, int(some.sum()))
        )
        within[:, i] = drawn.sum(1) / k
    heads = np.empty((draws, len(depths)))
    at = pairs.where(index)
    before = at[:, 3] * pairs.heads  # heads that come before each pair's reader
    starts = np.array([pairs.start(*where[3:]) for where in at.tolist()])
    # pairs of one head and one reader move together
    label = (at[:, 0] * pairs.heads + at[:, 1]) * len(good) + reader
    _, first, group = np.unique(label, return_index=True, return_inverse=True)
    for draw in range(draws):
        deal = (rng.random(len(first)) * before[first]).astype(np.int64)
        found = mask[starts + deal[group] * pairs.rank + at[:, 2]].cumsum()
        heads[draw] = [found[k - 1] / k for k in depths]
    return Chance(tuple(depths), within, heads)


def calibration(
    score: Float[Tensor, " pair"],
    effect: Float[Tensor, " pair"],
    quantiles: Sequence[float | int] = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999, 1),
) -> dict[str, list]:
    """Effects of pairs by their place in the order of scores.

    Returns:
        Columns, one row to a bin of scores: low, high (quantiles of the score), pairs, mean
        (of the score), effect (mean), effect_low and effect_high (the middle 80% of its pairs),
        hits (share of them).
    """
    x, y, hit = (t.cpu().numpy() for t in (score, effect, hits(effect)))
    ordered = np.sort(x)
    edges = [ordered[min(round(q * len(x)), len(x) - 1)] for q in quantiles[1:-1]]
    where = np.searchsorted(np.array(edges), x, side="right")
    rows = []
    for i, (low, high) in enumerate(zip(quantiles[:-1], quantiles[1:], strict=True)):
        at = where == i
        if at.any():
            ends = np.quantile(y[at], [0.1, 0.9]).tolist()
            of_bin = [float(values[at].mean(dtype=np.float64)) for values in (x, y, hit)]
            rows.append((low, high, int(at.sum()), *of_bin[:2], *ends, of_bin[2]))
    names = ("low", "high", "pairs", "mean", "effect", "effect_low", "effect_high", "hits")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def ends(
    score: Float[Tensor, " pair"], effect: Float[Tensor, " pair"], top: float, bottom: float
) -> tuple[int, float, float]:
    """How many pairs the `top` share of scores is, and mean effects at both ends of the order.

    These are of the `top` and of the `bottom` share of scores, over the mean of all pairs.

    >>> score = torch.tensor([3.0, 1.0, 2.0, 0.0])
    >>> ends(score, torch.tensor([6.0, 1.0, 3.0, 2.0]), 0.25, 0.5)
    (1, 2.0, 0.5)
    """
    some = [max(1, round(share * len(score))) for share in (top, bottom)]
    lowest = np.argpartition(score.cpu().numpy(), some[1] - 1)[: some[1]]
    mean = effect.double().mean()
    high = effect[highest(score, some[0])].double().mean() / mean
    low = effect[torch.from_numpy(lowest).to(effect.device)].double().mean() / mean
    return some[0], float(high), float(low)


class Resampled:
    """Effects of a task as they would be on other prompts, draw by draw.

    Only contenders for the hits are looked at, and some pairs drawn evenly, so that a draw takes
    milliseconds where all pairs would take seconds.
    """

    def __init__(
        self,
        effect: Float[Tensor, " pair"],
        units: Float[Tensor, "unit pair"],
        *,
        seed: int,
        draws: int = 200,
    ) -> None:
        checks.shape("units", units, (None, len(effect)), "unit, pair beside the effects")
        if len(units) < 2:
            raise CompanionError("one unit cannot be resampled: give at least two")
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, len(units), size=(draws, len(units)))
        counts = np.stack([np.bincount(row, minlength=len(units)) for row in drawn])
        self.weights = torch.from_numpy(counts / len(units)).float().to(effect.device)
        self.units, self.count = units, max(1, round(SHARE * len(effect)))
        self.contenders = highest(effect, _CONTENDERS * self.count)
        picked = rng.choice(len(effect), min(_SAMPLE, len(effect)), replace=False)
        self.sample = torch.from_numpy(picked).to(effect.device)
        near = units[:, self.contenders].float()
        self.threshold = torch.stack(
            [torch.topk(w @ near, self.count, sorted=False).values.min() for w in self.weights]
        )

    def effects(self, index: Int[Tensor, " n"]) -> Float[Tensor, "draw n"]:
        """Effects of some pairs, draw by draw."""
        return self.weights @ self.units[:, index].float()

    def hit(self, index: Int[Tensor, " n"]) -> Bool[Tensor, "draw n"]:
        """Whether some pairs are hits, draw by draw."""
        return self.effects(index) >= self.threshold[:, None]

    def precision(
        self, order: Int[Tensor, " top"], depths: Sequence[int] = DEPTHS
    ) -> Float[np.ndarray, "draw depth"]:
        """Share of hits among the first k of an order, draw by draw."""
        checked(depths, len(order))
        found = self.hit(order).double().cumsum(1)
        return np.stack([found[:, k - 1].cpu().numpy() / k for k in depths], axis=1)

    def correlations(self, scores: Iterable[Float[Tensor, " pair"]]) -> np.ndarray:
        """Rank correlations of some scores with the effect, draw by draw: [score, draw].

        Taken over pairs drawn evenly; the last column is that of the effects as measured, over the
        same pairs.
        """
        x = torch.stack([ranks(score[self.sample]) for score in scores])
        own = self.units[:, self.sample].float()
        rows = [*(w @ own for w in self.weights), own.mean(0)]
        found = [correlation(x, ranks(row)) for row in rows]
        return torch.stack(found, dim=1).cpu().numpy()


def interval(value: float, draws: Float[np.ndarray, " draw"], level: float = 0.95) -> Interval:
    """A value with the percentile interval of its draws.

    Widened to hold the value itself, which few and noisy draws may miss.
    """
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))


def shifted(draws: Float[np.ndarray, " draw"], whole: float) -> Float[np.ndarray, " moved"]:
    """Draws taken over some pairs (`Resampled.correlations`), moved to the value over all pairs."""
    return draws[:-1] - draws[-1] + whole
