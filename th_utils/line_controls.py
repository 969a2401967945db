"""Random directions added over the same range as the line: the control of chapter 04.

Some are drawn from what the head could write, each with a little of the line in it; some from the
whole residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from th_utils.bootstrap import Interval, crossed, mean_interval
from th_utils.components import random_directions
from th_utils.line import Line
from th_utils.line_steering import WAYS, Preference, between_ends, moved
from th_utils.roles import Head
from th_utils.runs import CleanRun
from th_utils.steering import Axes, How
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi


@dataclass(frozen=True)
class Control:
    """Random directions of length 1, each added over the same range as the line's."""

    attention: Float[np.ndarray, "pair draw"]  # change between the ends
    logits: Float[np.ndarray, "pair draw"]


def controls(
    bridge: Any,
    run: CleanRun,
    svd: HeadSVD,
    line: Line,
    mover: Head,
    reach: float,
    *,
    draws: int,
    seed: int,
) -> dict[str, Control]:
    """Random directions of what the head can write, and of the whole residual stream.

    Returns:
        By kind, "head" and "residual".
    """
    direction = line.axes.directions
    generator = torch.Generator().manual_seed(seed + 1)
    anywhere = torch.randn(draws, direction.shape[-1], generator=generator).to(direction)
    drawn = {
        "head": random_directions(svd, line.head, draws, seed=seed),
        "residual": anywhere / anywhere.norm(dim=-1, keepdim=True),
    }
    return {
        kind: added(bridge, run, line.head, directions, mover, reach)
        for kind, directions in drawn.items()
    }


def added(
    bridge: Any,
    run: CleanRun,
    head: Head,
    directions: Float[Tensor, "draw d_model"],
    mover: Head,
    reach: float,
) -> Control:
    """Each direction added where the head writes, one at a time, from -reach to reach."""
    draws = len(directions)
    axes = Axes((head,) * draws, directions, tuple(map(str, range(draws))))
    ends = reach * torch.eye(draws).to(directions)
    after = moved(bridge, run, axes, torch.cat([-ends, ends])[:, None], mover)
    return Control(
        *(
            ioi.pair_means(values[:, draws:] - values[:, :draws])
            for values in (after.attention, after.logits)
        )
    )


def size_of_control(
    control: Float[np.ndarray, "pair draw"],
    line: Float[np.ndarray, " pair"],
    *,
    seed: int,
    n_boot: int = 2000,
) -> Interval:
    """Mean over draws of the size of their mean change, as a share of the line's mean change.

    Few directions stand for all: the interval resamples the draws as well as the pairs of prompts.
    """

    def share(pairs: np.ndarray, draws: np.ndarray) -> np.ndarray:
        sizes = np.abs(pairs @ control / pairs.sum(-1, keepdims=True))
        return (draws * sizes).sum(-1) / draws.sum(-1) / (pairs @ line / pairs.sum(-1))

    return crossed(share, control.shape, seed=seed, n_boot=n_boot)


def change_table(
    found: dict[How, Preference], control: dict[str, Control], *, seed: int
) -> dict[str, list]:
    """Change between the ends of the sweep: along the line, and along each random direction.

    Returns:
        Columns: kind ("add", "only", "head", "residual"), draw, and mean, low, high of the change
        of the mover's attention ("attention mean", ...) and of the logits, nats.
    """
    rows: list[tuple[str, int, np.ndarray, np.ndarray]] = [
        (how, 0, between_ends(found[how].attention), between_ends(found[how].logits))
        for how, _ in WAYS
    ]
    for kind, c in control.items():
        rows += [(kind, i, c.attention[:, i], c.logits[:, i]) for i in range(c.logits.shape[1])]
    table: dict[str, list] = {"kind": [r[0] for r in rows], "draw": [r[1] for r in rows]}
    for name, column in (("attention", 2), ("logits", 3)):
        intervals = [mean_interval(row[column], seed=seed) for row in rows]
        for end, i in (("mean", 0), ("low", 1), ("high", 2)):
            table[f"{name} {end}"] = [interval[i] for interval in intervals]
    return table
