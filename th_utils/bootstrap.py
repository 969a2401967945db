"""How sure a number is: bootstrap intervals over prompts, permutation nulls over components.

Sources: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile
interval); Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1 (two kinds of draws
crossed); Phipson and Smyth 2010 (a permutation p-value is (1 + k) / (1 + n), never zero).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

# Entries of a resampled block; 4 million float64 are 32 MB.
_BLOCK = 4_000_000

Alternative = Literal["greater", "less", "two-sided"]


class Interval(NamedTuple):
    """An estimate with the ends of its interval, in the unit of the estimate."""

    value: float
    low: float
    high: float


class PermutationTest(NamedTuple):
    """A statistic, its permutation p-value and the values it took under the null."""

    value: float
    p: float
    null: Float[np.ndarray, " permutation"]


def mean_interval(
    x: Shaped[np.ndarray, " n"], *, seed: int, n_boot: int = 2000, level: float = 0.95
) -> Interval:
    """Mean of `x` with the percentile bootstrap interval over its entries.

    Args:
        x: one value per independent draw (a prompt), numbers or booleans.
        seed: of the resampling; the same seed gives the same interval.
        n_boot: number of resamples.
        level: coverage aimed at, between 0 and 1.

    Raises:
        ValueError: `x` is empty or not finite, or an argument is out of range.

    >>> mean_interval(np.array([1.0, 1.0, 1.0]), seed=0)
    Interval(value=1.0, low=1.0, high=1.0)
    """
    return bootstrap(
        lambda sample: sample.mean(axis=1),
        [x.astype(np.float64)],
        seed=seed,
        n_boot=n_boot,
        level=level,
        batched=True,
    )


def bootstrap(
    statistic: Callable[..., float | np.ndarray],
    arrays: Sequence[Shaped[np.ndarray, "n ..."]],
    *,
    seed: int,
    n_boot: int = 2000,
    level: float = 0.95,
    batched: bool = False,
) -> Interval:
    """Percentile bootstrap interval of any statistic of paired arrays.

    The first axis is resampled, with the same indices in all arrays, so that what was measured on
    one prompt stays together.

    Args:
        statistic: called with the resampled arrays, in order. With `batched`, it is given arrays
            `[replicate, n, *rest]` and returns one value per replicate; else arrays
            `[n, *rest]`, and returns one number.
        arrays: all of the same length n.
        seed, n_boot, level: as for `mean_interval`.

    Raises:
        ValueError: no data, lengths that differ, values that are not finite, or an argument out of
            range.
    """
    n = _common_length(arrays)
    if n_boot < 1 or not 0 < level < 1:
        raise ValueError(f"n_boot must be positive and 0 < level < 1, not {n_boot} and {level}")
    rng = np.random.default_rng(seed)
    width = max(1, sum(array.size for array in arrays))
    rows = max(1, _BLOCK // width)
    replicates = []
    for start in range(0, n_boot, rows):
        index = rng.integers(0, n, size=(min(rows, n_boot - start), n))
        if batched:
            replicates.append(np.asarray(statistic(*(array[index] for array in arrays))))
        else:
            replicates.append(
                np.array([float(statistic(*(array[row] for array in arrays))) for row in index])
            )
    if batched:
        value = float(np.asarray(statistic(*(array[None] for array in arrays)))[0])
    else:
        value = float(statistic(*arrays))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(replicates), [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def crossed(
    statistic: Callable[..., np.ndarray],
    shape: tuple[int, int],
    *,
    seed: int,
    n_boot: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic of units measured under several random draws.

    Few draws stand for all that could have been made, so draws are resampled as well as units,
    each by itself (Owen 2007, the pigeonhole bootstrap). With one draw the interval is over units
    alone.

    Args:
        statistic: given how often each unit and each draw was picked, `[replicate, unit]` and
            `[replicate, draw]`; returns one value per replicate.
        shape: number of units and of draws.
        seed, n_boot, level: as for `mean_interval`.

    Raises:
        ValueError: no units, no draws, or an argument out of range.
    """
    if min(shape) < 1 or n_boot < 1 or not 0 < level < 1:
        raise ValueError(
            f"{shape[0]} units, {shape[1]} draws, n_boot {n_boot} and level {level}: the first "
            "three must be positive, the level between 0 and 1"
        )
    rng = np.random.default_rng(seed)
    value = statistic(*(np.ones((1, size)) for size in shape))[0]
    found = statistic(*(rng.multinomial(size, [1 / size] * size, n_boot) for size in shape))
    tail = (1 - level) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def crossed_mean(
    x: Float[np.ndarray, "unit draw"],
    units: Float[np.ndarray, "replicate unit"] | Int[np.ndarray, "replicate unit"],
    draws: Float[np.ndarray, "replicate draw"] | Int[np.ndarray, "replicate draw"],
) -> Float[np.ndarray, " replicate"]:
    """Mean over units and draws, each counted as often as it was picked in a replicate."""
    return ((units @ x) * draws).sum(-1) / (units.sum(-1) * draws.sum(-1))


def permutation_null(
    statistic: Callable[[np.ndarray], float | np.ndarray],
    labels: Shaped[np.ndarray, " n"],
    *,
    seed: int,
    n: int = 2000,
    alternative: Alternative = "greater",
    within: Shaped[np.ndarray, " n"] | None = None,
    batched: bool = False,
) -> PermutationTest:
    """Test a statistic against what it is when labels are dealt out at random.

    Args:
        statistic: a function of the labels, the rest held fixed. With `batched`, it is given
            labels `[permutation, n]` and returns one value for each row.
        labels: what is permuted: classes, ranks or scores.
        seed: of the permutations.
        n: how many permutations are drawn.
        alternative: which deviations count as extreme. "two-sided" measures them from the mean of
            the null and the observed value together, which keeps the test exact.
        within: group of each label; labels are then permuted inside their group only.

    Returns:
        the observed value, p = (1 + k) / (1 + n) with k the number of permutations at least as
        extreme as the observed labels (ties count), and the null values.

    Raises:
        ValueError: no labels, no permutations, or groups of another length.

    >>> score = np.arange(8.0)
    >>> test = permutation_null(lambda label: score[label].mean(), score > 3, seed=0, n=999)
    >>> test.value, test.p < 0.05
    (5.5, True)
    """
    if labels.size == 0 or n < 1:
        raise ValueError("a permutation test needs labels and at least one permutation")
    if within is not None and within.shape != labels.shape:
        raise ValueError("`within` must name the group of each label")
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // labels.size)
    null = []
    for start in range(0, n, rows):
        block = _permuted(labels, within, min(rows, n - start), rng)
        if batched:
            null.append(np.asarray(statistic(block), dtype=np.float64))
        else:
            null.append(np.array([float(statistic(row)) for row in block]))
    value = float(np.asarray(statistic(labels[None]))[0] if batched else statistic(labels))
    drawn = np.concatenate(null)
    return PermutationTest(value, _p_value(value, drawn, alternative), drawn)


def p_text(p: float) -> str:
    """A p-value for a sentence; one from a finite number of permutations is never zero.

    >>> p_text(0.0123), p_text(0.0005)
    ('p = 0.012', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def rank_correlation(
    x: Shaped[np.ndarray, "*x n"], y: Shaped[np.ndarray, "*y n"]
) -> Float[np.ndarray, "..."] | np.floating:
    """Spearman's rank correlation along the last axis; ties share their mean rank.

    Leading axes broadcast, so that one call correlates `x` with many permutations of `y`. A
    constant argument gives nan.

    >>> round(float(rank_correlation(np.array([1.0, 2.0, 4.0]), np.array([3.0, 9.0, 8.0]))), 3)
    0.5
    """
    a, b = _centred_ranks(x), _centred_ranks(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def _centred_ranks(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(-1, x.shape[-1])
    ranks = np.empty(flat.shape, dtype=np.float64)
    for i, row in enumerate(flat):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        ranks[i] = (last - (counts - 1) / 2)[inverse]
    return (ranks - ranks.mean(-1, keepdims=True)).reshape(x.shape)


def _common_length(arrays: Sequence[np.ndarray]) -> int:
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"need arrays of one and the same length, not {sorted(lengths)}")
    for array in arrays:
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ValueError("cannot resample values that are not finite")
    return lengths.pop()


def _permuted(
    labels: np.ndarray, within: np.ndarray | None, rows: int, rng: np.random.Generator
) -> np.ndarray:
    block = np.broadcast_to(labels, (rows, labels.size)).copy()
    if within is None:
        return rng.permuted(block, axis=1)
    for group in np.unique(within):
        members = np.flatnonzero(within == group)
        block[:, members] = rng.permuted(block[:, members], axis=1)
    return block


def _p_value(value: float, null: np.ndarray, alternative: Alternative) -> float:
    if alternative == "two-sided":
        centre = (null.sum() + value) / (null.size + 1)
        value, null = abs(value - centre), np.abs(null - centre)
    elif alternative == "less":
        value, null = -value, -null
    elif alternative != "greater":
        raise ValueError(f"alternative must be greater, less or two-sided, not {alternative!r}")
    # A permutation that deals the same sum in another order differs by rounding: that is a tie.
    slack = 1e-12 * max(1.0, abs(value))
    return float((1 + np.count_nonzero(null >= value - slack)) / (1 + null.size))
