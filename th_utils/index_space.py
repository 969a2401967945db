r"""Does a small space of inhibition coordinates index the items of a list? (chapter 06)

The coordinates at the end position are set to the points of a grid and the main mover is watched:
which item's first mention does it look at most? For each place in the list the point that makes
it look there most often is chosen on one half of nouns and templates and tried on the other.
The paper's grid, its extent and its search are not known to us: *reconstruction*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import checks
from th_utils.bootstrap import Interval, crossed, crossed_mean, mean_interval
from th_utils.errors import CompanionError
from th_utils.recall import Recalled, check_heads, over_lists
from th_utils.roles import Head
from th_utils.runs import CleanRun
from th_utils.steering import Axes, random_axes, steer
from th_utils.svd import HeadSVD

MARGIN = 1.5  # of the grid, beyond the largest natural coordinate
NOTHING = 1e-9  # shares above chance up to here are rounding


# --- the grid


def extents(runs: Sequence[Recalled]) -> Float[Tensor, " axis"]:
    """How far the grid reaches along each axis, to both sides of zero.

    1.5 times the largest natural coordinate, in size, over all prompts of all list lengths given.
    """
    sizes = torch.stack([run.coordinates.abs().amax(0) for run in runs])
    return MARGIN * sizes.amax(0)


def levels(points: int, dimensions: int) -> int:
    """Values along each axis, so that a grid has about so many points in all.

    >>> [levels(125, d) for d in (1, 2, 3, 4)]
    [125, 11, 5, 3]
    """
    if points < 1 or dimensions < 1:
        raise CompanionError(f"{points} points in {dimensions} dimensions: give at least 1 of each")
    return max(2, round(points ** (1 / dimensions)))


def grid(extent: Float[Tensor, " axis"], points: int) -> Float[Tensor, "point axis"]:
    """A regular grid of about so many points from -extent to extent along each axis."""
    n = levels(points, len(extent))
    unit = torch.linspace(-1, 1, n, dtype=extent.dtype, device=extent.device)
    return torch.cartesian_prod(*[unit] * len(extent)).reshape(-1, len(extent)) * extent


def looks(
    bridge: Any, run: CleanRun, axes: Axes, points: Float[Tensor, "point axis"], mover: Head
) -> Float[Tensor, "point prompt item"]:
    """The mover's attention to each item's first mention, coordinates set to each point."""
    check_heads(bridge, [mover])
    steered = steer(bridge, run, axes, points[:, None], watch=[mover], logits=False)
    pattern = steered.patterns[mover]
    items = run.prompts.items[:, None].expand(-1, len(points), -1)
    return pattern.gather(-1, items).transpose(0, 1)


def choose(
    looked: Float[Tensor, "point prompt item"],
) -> tuple[Int[Tensor, " item"], Float[Tensor, "point item"]]:
    """For each item the point at which it is looked at most in the largest share of prompts.

    Among points that share the first place, the one with the largest mean attention to the item.

    Returns:
        The points, and the shares of prompts by point and item.
    """
    places = torch.arange(looked.shape[-1], device=looked.device)
    share = (looked.argmax(-1)[..., None] == places).double().mean(1)
    # attention is at most 1, so that it only decides where shares are equal
    prompts = looked.shape[1]
    return (share + looked.double().mean(1) / (2 * prompts)).argmax(0), share


@dataclass(frozen=True)
class Selection:
    """A search on one half, tried on the other."""

    axes: Axes
    points: Float[Tensor, "point axis"]
    shares: Float[Tensor, "point item"]  # of the prompts searched on, looked at most
    chosen: Int[Tensor, " item"]  # one point for each place
    found: Float[np.ndarray, "list item"]  # share of prompts selected, where it was chosen
    reported: Float[np.ndarray, "list2 item"]  # and on the other half
    attention: Float[np.ndarray, " item"]  # the mover's, to the item selected, other half
    reached: Float[np.ndarray, " item"]  # share of prompts searched on that some point selects

    @property
    def dimensions(self) -> int:
        return len(self.axes)


def select(
    bridge: Any,
    chosen_on: CleanRun,
    reported_on: CleanRun,
    axes: Axes,
    extent: Float[Tensor, " axis"],
    points: int,
    mover: Head,
) -> Selection:
    """Search a grid for the point of each place on one run, and try these points on another.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        chosen_on, reported_on: clean runs of lists of one length.
        axes: what is set; what else the heads write stays.
        extent: of the grid, see `extents`.
        points: of the grid, about.
        mover: the head that is watched.

    Raises:
        CompanionError: lists of two lengths, as many extents as axes are missing, or a mover that
            does not come after the axes' heads.
    """
    lengths = chosen_on.prompts.length, reported_on.prompts.length
    if len(set(lengths)) > 1:
        raise CompanionError(f"points chosen on lists of {lengths[0]} items, tried on {lengths[1]}")
    checks.shape("extent", extent, (len(axes),), "one for each axis")
    placed = grid(extent, points)
    searched = looks(bridge, chosen_on, axes, placed, mover)
    chosen, shares = choose(searched)
    tried = looks(bridge, reported_on, axes, placed[chosen], mover)
    n = lengths[0]
    by_place, most = torch.arange(n, device=tried.device), searched.argmax(-1)
    return Selection(
        axes=axes,
        points=placed,
        shares=shares,
        chosen=chosen,
        found=_hits(searched[chosen]),
        reported=_hits(tried),
        attention=tried[by_place, :, by_place].mean(1).double().cpu().numpy(),
        reached=np.array([float((most == k).any(0).double().mean()) for k in range(n)]),
    )


def _hits(looked: Float[Tensor, "item prompt item"]) -> Float[np.ndarray, "list item"]:
    """Share of each list's prompts in which the mover looks at a place most, at its point."""
    n = looked.shape[-1]
    right = looked.argmax(-1) == torch.arange(n, device=looked.device)[:, None]
    return right.double().mT.unflatten(0, (-1, n)).mean(1).cpu().numpy()


def select_at_random(
    bridge: Any,
    chosen_on: CleanRun,
    reported_on: CleanRun,
    svd: HeadSVD,
    axes: Axes,
    extent: Float[Tensor, " axis"],
    points: int,
    mover: Head,
    *,
    draws: int,
    seed: int,
) -> list[Selection]:
    """The same search in random subspaces of what the same heads write: a control."""
    return [
        select(
            bridge,
            chosen_on,
            reported_on,
            random_axes(svd, axes, seed=seed + 1 + draw),
            extent,
            points,
            mover,
        )
        for draw in range(draws)
    ]


# --- nothing set


def looks_at_target(run: Recalled) -> Float[np.ndarray, " list"]:
    """Share of each list's prompts in which the mover looks most at the item left out."""
    return run.lists(run.looks.argmax(-1) == run.prompts.target).mean(1)


def clean_hits(run: Recalled) -> Float[np.ndarray, "list item"]:
    """Share of each list's prompts in which the mover looks at a place most, nothing set."""
    each = run.looks.argmax(-1)[:, None] == torch.arange(run.length, device=run.looks.device)
    return run.lists(each).mean(1)


# --- what the claims ask


def share(selection: Selection, *, seed: int) -> Interval:
    """Share of places selected on the half that the points were not chosen on."""
    return mean_interval(selection.reported.mean(1), seed=seed)


def gain(one: Selection, other: Selection, *, seed: int) -> Interval:
    """Share of places selected in one space less that in another, on the same lists."""
    return mean_interval(one.reported.mean(1) - other.reported.mean(1), seed=seed)


def gains_by_place(
    selection: Selection, clean: Float[np.ndarray, "list item"], *, seed: int
) -> list[Interval]:
    """Share of prompts in which each place is selected, less that with nothing set, same lists."""
    return [mean_interval(x, seed=seed) for x in (selection.reported - clean).T]


def carried_over(selection: Selection, *, seed: int) -> Interval:
    """Share of places selected on the other half, of that on the half searched, above chance.

    It counts as 0 where nothing is selected above chance on the half searched.
    """
    chance = 1 / selection.reported.shape[1]
    return over_lists(
        lambda found, reported: _share_of(reported.mean() - chance, found.mean() - chance, 0.0),
        [selection.found.mean(1), selection.reported.mean(1)],
        seed=seed,
    )


def random_share(controls: Sequence[Selection], selection: Selection, *, seed: int) -> Interval:
    """Share of places selected in random subspaces, mean over draws, of that in these axes.

    Both above chance, on the same lists. It counts as 1 where the axes select nothing above
    chance themselves. The interval is over lists and over the subspaces drawn.

    Raises:
        CompanionError: no control.
    """
    if not controls:
        raise CompanionError("no random subspace was drawn: give at least one")
    chance = 1 / selection.reported.shape[1]
    drawn = np.stack([control.reported.mean(1) for control in controls], axis=1)
    own = selection.reported.mean(1)

    def ratio(lists: np.ndarray, draws: np.ndarray) -> np.ndarray:
        whole = lists @ own / lists.sum(-1) - chance
        part = crossed_mean(drawn, lists, draws) - chance
        return np.where(whole > NOTHING, part / np.maximum(whole, NOTHING), 1.0)

    return crossed(ratio, drawn.shape, seed=seed)


def _share_of(part: float, whole: float, otherwise: float) -> float:
    """A ratio above chance, or what counts as one where the whole is at chance itself."""
    return float(part / whole) if whole > NOTHING else otherwise
