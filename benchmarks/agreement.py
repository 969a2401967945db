"""How far an estimate of many effects agrees with the exact ones."""

from __future__ import annotations

import torch
from torch import Tensor


def compare(exact: Tensor, estimate: Tensor) -> dict[str, float]:
    """Pearson's and Spearman's correlation, and the slope of the estimate on the exact effect.

    Entries that are NaN in either are left out. Ties share no rank: there are none among effects.

    >>> said = compare(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 8.0]))
    >>> said["slope"], said["count"]
    (2.0, 3)
    """
    both = ~(exact.isnan() | estimate.isnan())
    x, y = exact[both].double(), estimate[both].double()
    dx, dy = x - x.mean(), y - y.mean()
    return {
        "correlation": _correlation(x, y),
        "rank_correlation": _correlation(_ranks(x), _ranks(y)),
        "slope": float((dx * dy).sum() / (dx * dx).sum()),
        "count": int(both.sum()),
    }


def _correlation(x: Tensor, y: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])


def _ranks(x: Tensor) -> Tensor:
    return x.argsort().argsort().double()
