"""Runs on lists and selections of points with numbers that a test chooses."""

from __future__ import annotations

import numpy as np
import torch

from th_utils.index_space import Selection
from th_utils.recall import Recalled
from th_utils.steering import Axes
from th_utils.tasks import lists


def made_up(coordinates: np.ndarray) -> Recalled:
    """A run with these coordinates, [list, place, axis]."""
    n_lists, n, axes = coordinates.shape
    ones = torch.zeros(n_lists * n, n, dtype=torch.long)
    prompts = lists.ListPrompts(
        tokens=ones, positions={}, items=ones, again=ones, answers=ones, target=ones[:, 0],
        template=ones[:, 0], texts=("",) * (n_lists * n),
    )  # fmt: skip
    flat = torch.tensor(coordinates).reshape(n_lists * n, axes)
    return Recalled(prompts, ones.float(), ones[:, 0] == 0, flat, ones.float())


def selection(found, reported, dimensions=2, chosen=None) -> Selection:
    found, reported = np.asarray(found, dtype=float), np.asarray(reported, dtype=float)
    n = reported.shape[1]
    names = tuple(f"axis {i}" for i in range(dimensions))
    axes = Axes(((0, 1),) * dimensions, torch.eye(dimensions, 8), names)
    return Selection(
        axes=axes,
        points=torch.arange(6.0 * dimensions).reshape(6, dimensions),
        shares=torch.eye(6, n, dtype=torch.float64),
        chosen=torch.arange(n) if chosen is None else torch.tensor(chosen),
        found=found,
        reported=reported,
        attention=np.zeros(n),
        reached=np.ones(n),
    )


HALF = [[1.0, 0.0], [0.5, 0.5]]
GOOD = [[1.0, 0.8], [1.0, 0.8]]
