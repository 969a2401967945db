r"""What a score is worth: how often chance alone reaches it.

A writer that has nothing to do with a reader writes along a direction drawn evenly from the sphere.
With the reader's spectrum :math:`\lambda_i` (squared singular values over their sum) its squared
component score is :math:`\sum_i \lambda_i z_i^2 / \sum_j z_j^2`, the z being independent standard
normal numbers, so that

.. math:: P(CS^2 > t) = P\Big(\sum_j a_j z_j^2 > 0\Big), \qquad a_j = \lambda_j - t,

with :math:`\lambda_j = 0` in the directions that the reader does not see. For several orthogonal
directions weighted by :math:`w_k` (the shares :math:`s_k^2 / \sum s_k^2` of a whole head, or equal
ones for a sum of components) the weights become :math:`w_k (\lambda_j - t)`. For one direction that
is exact. For more it treats orthogonal directions as independent ones. That this errs on the quiet
side, giving high scores a larger chance than they have, is no theorem here. It is so where tests
look: for two directions and a reader of rank 1, where the chance is :math:`(1 - 2t)^{(d - 2) / 2}`
in d dimensions; and for three directions and for whole heads by importance sampling, as far out as
alarms are decided.

The chance of a quadratic form being positive comes from the saddlepoint approximation of Lugannani
and Rice (1980), as Kuonen (1999, Biometrika 86) uses it. It is right within a fifth far out in the
tail, where no simulation gets and where the many comparisons of a search are decided.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Halvings bring Newton's method near enough to converge.
_HALVINGS, _STEPS = 8, 5


def score_tail(
    score: Float[Tensor, "*test"],
    spectrum: Float[Tensor, "*test eigenvalue"],
    dimensions: int,
    *,
    directions: int = 1,
    weights: Float[Tensor, "*test direction"] | None = None,
) -> Float[Tensor, "*test"]:
    """Chance that random directions score at least this with a reader.

    Args:
        score: composition score, or the root of a weighted mean of squared component scores.
        spectrum: of the reader, squared singular values; any scale.
        dimensions: of the space that the directions are drawn from, at least as many as
            `spectrum` has values: d_model, or one less where everything is centred.
        directions: number of orthogonal directions whose squared scores are averaged.
        weights: of the directions in this mean, any scale; equal ones when None.

    Returns:
        Probabilities; 1 where a score is no higher than a random one is in the mean, and with a
        reader that reads nothing.

    In a plane, with a reader that sees one axis of it, a score above 0.9 is an angle to that axis
    below 26 degrees, arccos 0.9; all angles up to 90 degrees are alike.

    >>> tail = score_tail(torch.tensor([0.9]), torch.tensor([[1.0]]), 2)
    >>> bool((tail - math.acos(0.9) / (math.pi / 2)).abs() < 0.02)
    True
    """
    # A spectrum of zeros becomes NaN here, and a chance of 1 in the end.
    spectrum = spectrum.double() / spectrum.double().sum(-1, keepdim=True)
    unseen = dimensions - spectrum.shape[-1]
    t = score.double()[..., None] ** 2
    values = torch.cat([spectrum - t, -t], dim=-1)
    times = values.new_ones(values.shape[-1])
    times[-1] = unseen
    if weights is None:
        return positive_chance(values, times * directions)
    share = weights.double() / weights.double().sum(-1, keepdim=True)
    values = (share[..., :, None] * values[..., None, :]).flatten(-2)
    return positive_chance(values, times.repeat(weights.shape[-1]))


def positive_chance(
    values: Float[Tensor, "*test term"], times: Float[Tensor, " term"]
) -> Float[Tensor, "*test"]:
    """P(sum_j values_j * chi-squared_j > 0) with `times_j` degrees of freedom each, by saddlepoint.

    Forms with a mean of zero or more count as 1: only the upper tail is of use here. A form without
    a positive value is never positive. Where a value is NaN nothing is known, and that is no reason
    for an alarm: it counts as 1.

    One square against the sum of eleven: Student's t with 11 degrees of freedom is beyond the root
    of 11 with a chance of 0.0069.

    >>> forms = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [math.nan, -1.0]], dtype=torch.float64)
    >>> [round(p, 3) for p in positive_chance(forms, torch.tensor([1.0, 11.0])).tolist()]
    [0.007, 0.0, 1.0]
    """
    times = times.to(values)
    largest = values.amax(-1)
    # Neither above nor below 0 is NaN; amax hands it on.
    decided = (~(largest <= 0)).to(values)
    in_tail = (largest > 0) & ((values * times).sum(-1) < 0)
    # What is decided already takes part as any form that is in its tail, and is put right below.
    largest = torch.where(in_tail, largest, 1.0)
    values = torch.where(in_tail[..., None], values / largest[..., None], -1.0)
    # K'(theta) rises through zero between 0 and the pole of the largest value, here 1/2.
    low, high = torch.zeros_like(largest), torch.full_like(largest, 0.5)
    theta = (low + high) / 2
    for step in range(_HALVINGS + _STEPS):
        terms = values / (1 - 2 * theta[..., None] * values)
        slope = (times * terms).sum(-1)
        low, high = torch.where(slope < 0, theta, low), torch.where(slope < 0, high, theta)
        if step < _HALVINGS:
            theta = (low + high) / 2
        else:
            theta = (theta - slope / (2 * (times * terms**2).sum(-1))).clamp(low, high)
    factor = 1 - 2 * theta[..., None] * values
    cumulant = -0.5 * (times * factor.clamp_min(1e-300).log()).sum(-1)
    curvature = 2 * (times * (values / factor) ** 2).sum(-1)
    w = (-2 * cumulant).clamp_min(1e-12).sqrt()
    v = (theta * curvature.sqrt()).clamp_min(1e-12)
    density = torch.exp(-(w**2) / 2) / math.sqrt(2 * math.pi)
    tail = torch.special.erfc(w / math.sqrt(2)) / 2 + density * (1 / v - 1 / w)
    return torch.where(in_tail, tail.clamp(0, 1), decided)
