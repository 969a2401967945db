"""How far an estimate of many effects agrees with the exact ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from th_utils import bootstrap

LARGEST = 50  # exact effects, whose signs are compared


def compare(exact: torch.Tensor, estimate: torch.Tensor) -> dict[str, float]:
    """Pearson's and Spearman's correlation, and the slope of the estimate on the exact effect.

    Entries that are NaN in either are left out; ties share their mean rank.

    >>> said = compare(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 8.0]))
    >>> said["slope"], said["count"]
    (2.0, 3)
    """
    both = ~(exact.isnan() | estimate.isnan())
    x, y = (values[both].double().cpu().numpy() for values in (exact, estimate))
    return {
        "correlation": correlation(x, y),
        "rank_correlation": float(bootstrap.rank_correlation(x, y)),
        "slope": slope(x, y),
        "count": int(both.sum()),
    }


def over_prompts(
    exact: np.ndarray, estimate: np.ndarray, *, seed: int, n_boot: int = 2000
) -> dict[str, Any]:
    """Agreement on effects averaged over prompts, with 95% bootstrap intervals over prompts.

    Each statistic is computed anew from the averages of each draw of prompts. What two estimates
    share with single prompts is said beside it: the correlation within each prompt, and their mean.

    Args:
        exact, estimate: [prompt, cell], NaN for cells without an effect in that prompt; a cell is
            averaged over the prompts that have it.
        seed, n_boot: of the resampling.

    Returns:
        value, low and high of each statistic; how many cells there are, and the root mean square
        of both kinds of averages.

    >>> exact = np.arange(12.0).reshape(2, 6) ** 2
    >>> said = over_prompts(exact, 3 * exact, seed=0, n_boot=10)
    >>> said["cells"], [round(x, 6) for x in said["slope"]]
    (6, [3.0, 3.0, 3.0])
    """
    there = ~(np.isnan(exact) | np.isnan(estimate))
    some = there.any(0)
    there, exact, estimate = there[:, some], exact[:, some], estimate[:, some]
    zeroed = np.where(there, exact, 0.0), np.where(there, estimate, 0.0)

    def averages(prompts: np.ndarray) -> list[np.ndarray]:
        times = there[prompts].sum(0)
        seen = times > 0
        return [values[prompts].sum(0)[seen] / times[seen] for values in zeroed]

    def sure(statistic: Callable[[np.ndarray, np.ndarray], float]) -> list[float]:
        return list(
            bootstrap.bootstrap(
                lambda prompts: statistic(*averages(prompts)),
                [np.arange(len(exact))],
                seed=seed,
                n_boot=n_boot,
            )
        )

    within = [correlation(x[at], y[at]) for x, y, at in zip(exact, estimate, there, strict=True)]
    x, y = averages(np.arange(len(exact)))
    return {
        "correlation": sure(correlation),
        "rank_correlation": sure(lambda x, y: float(bootstrap.rank_correlation(x, y))),
        "slope": sure(slope),
        "same_sign": sure(same_sign),
        "within_prompts": list(bootstrap.mean_interval(np.array(within), seed=seed, n_boot=n_boot)),
        "each_prompt": within,
        "cells": len(x),
        "rms_exact": _root_mean_square(x),
        "rms_estimate": _root_mean_square(y),
    }


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's."""
    return float(np.corrcoef(x, y)[0, 1])


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of the line by least squares that says y from x."""
    dx, dy = x - x.mean(), y - y.mean()
    return float((dx * dy).sum() / (dx * dx).sum())


def same_sign(x: np.ndarray, y: np.ndarray) -> float:
    """The share of equal signs among the `LARGEST` of the exact effects x."""
    largest = np.argsort(-np.abs(x), kind="stable")[:LARGEST]
    return float((np.sign(x[largest]) == np.sign(y[largest])).mean())


def _root_mean_square(x: np.ndarray) -> float:
    return float(np.sqrt((x * x).mean()))
