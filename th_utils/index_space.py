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
from th_utils.bootstrap import Interval, mean_interval
from th_utils.errors import CompanionError
from th_utils.recall import Recalled, check_heads, over_lists
from th_utils.roles import Head
from th_utils.runs import CleanRun
from th_utils.steering import Axes, random_axes, steer
from th_utils.svd import HeadSVD

MARGIN = 1.5  # of the grid, beyond the largest natural coordinate
MOST = 10.0  # the largest share that is told from larger ones


# --- natural coordinates


def discriminability(
    coordinates: Float[np.ndarray, "list place axis"],
) -> Float[np.ndarray, " pair"]:
    r"""How far apart neighbouring places lie: distance of their centroids over the spread.

    .. math:: d_t = \sqrt{\max(0, |\bar x_{t+1} - \bar x_t|^2 - e_t)} / s

    s is the root mean square distance of a prompt from the centroid of its place, over all
    places. e_t is what sampling alone adds to a squared distance of centroids, the variance of
    the lists' own differences over their number: without it few lists would look far apart.
    *Reconstruction.*

    Raises:
        CompanionError: fewer than two lists or places.
    """
    lists, places = coordinates.shape[:2]
    if lists < 2 or places < 2:
        raise CompanionError(
            f"{lists} lists of {places} items: to tell places apart takes two lists of two items"
        )
    spread = np.sqrt(coordinates.var(axis=0, ddof=1).sum(-1).mean())
    step = np.diff(coordinates, axis=1)
    squared = (step.mean(0) ** 2).sum(-1) - step.var(axis=0, ddof=1).sum(-1) / lists
    # a resample may hold one list only: no spread, and nothing apart either
    return np.sqrt(np.maximum(squared, 0)) / spread if spread > 0 else np.zeros(places - 1)


def plane(run: Recalled, n: int = 2) -> Float[np.ndarray, "list place axis"]:
    """The first coordinates of a run, by list and place."""
    return run.lists(run.coordinates[:, :n])


def crowding(
    short: Float[np.ndarray, "list place axis"],
    long: Float[np.ndarray, "list2 place2 axis"],
    *,
    seed: int,
) -> Interval:
    """Mean discriminability in longer lists as a share of that in shorter ones.

    A share above ten counts as ten, also where the short lists' places lie on each other.

    Raises:
        CompanionError: fewer than two lists.
    """

    def ratio(a: np.ndarray, b: np.ndarray) -> float:
        apart = discriminability(a).mean()
        return min(float(discriminability(b).mean() / apart), MOST) if apart > 0 else MOST

    return over_lists(ratio, [short, long], seed=seed)


def coordinate_table(runs: Sequence[Recalled], names: Sequence[str]) -> dict[str, list]:
    """Where the coordinates lie by the place of the item left out.

    Returns:
        Columns: length, place (from 1), axis (from 1), name, mean, low, high (the middle half of
        the lists), d (discriminability from the next place in the plane of the first two axes,
        None at the last place).
    """
    rows = []
    for run in runs:
        apart = [*discriminability(plane(run)).tolist(), None]
        by_place = plane(run, len(names))
        low, high = np.quantile(by_place, [0.25, 0.75], axis=0)
        for place in range(run.length):
            for axis, name in enumerate(names):
                mean = float(by_place[:, place, axis].mean())
                ends = float(low[place, axis]), float(high[place, axis])
                rows.append((run.length, place + 1, axis + 1, name, mean, *ends, apart[place]))
    columns = ("length", "place", "axis", "name", "mean", "low", "high", "d")
    return {column: [row[i] for row in rows] for i, column in enumerate(columns)}


def extents(runs: Sequence[Recalled]) -> Float[Tensor, " axis"]:
    """How far the grid reaches along each axis, to both sides of zero.

    1.5 times the largest natural coordinate, in size, over all prompts of all list lengths given.
    """
    sizes = torch.stack([run.coordinates.abs().amax(0) for run in runs])
    return MARGIN * sizes.amax(0)


# --- the grid


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


# --- what the claims ask


def share(selection: Selection, *, seed: int) -> Interval:
    """Share of places selected on the half that the points were not chosen on."""
    return mean_interval(selection.reported.mean(1), seed=seed)


def gain(one: Selection, other: Selection, *, seed: int) -> Interval:
    """Share of places selected in one space less that in another, on the same lists."""
    return mean_interval(one.reported.mean(1) - other.reported.mean(1), seed=seed)


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
    chance themselves.

    Raises:
        CompanionError: no control.
    """
    if not controls:
        raise CompanionError("no random subspace was drawn: give at least one")
    chance = 1 / selection.reported.shape[1]
    drawn = np.mean([control.reported.mean(1) for control in controls], axis=0)
    both = np.stack([drawn, selection.reported.mean(1)], axis=1)
    return over_lists(
        lambda x: _share_of(x[:, 0].mean() - chance, x[:, 1].mean() - chance, 1.0),
        [both],
        seed=seed,
    )


def _share_of(part: float, whole: float, otherwise: float) -> float:
    """A ratio above chance, or what counts as one where the whole is at chance itself."""
    return float(part / whole) if whole > 1e-9 else otherwise


# --- tables


def point_table(selection: Selection) -> dict[str, list]:
    """Every grid point, and which place the mover looks at most there.

    Returns:
        Columns: length (of the lists), axis 1, axis 2, ... (coordinates), item (looked at most in
        the largest share of prompts, from 1), share (of the prompts searched on), chosen (the
        places that the point was chosen for, such as "3, 4"; empty for most).
    """
    n = selection.shares.shape[1]
    best = selection.shares.max(-1)
    places: dict[int, list[str]] = {}
    for place, point in enumerate(selection.chosen.tolist()):
        places.setdefault(point, []).append(str(place + 1))
    table: dict[str, list] = {"length": [n] * len(selection.points)}
    for axis in range(selection.dimensions):
        table[f"axis {axis + 1}"] = selection.points[:, axis].tolist()
    table["item"] = (best.indices + 1).tolist()
    table["share"] = best.values.tolist()
    table["chosen"] = [", ".join(places.get(point, [])) for point in range(len(selection.points))]
    return table


def dimension_table(
    selections: Sequence[Selection], controls: Sequence[Selection], clean: np.ndarray, *, seed: int
) -> dict[str, list]:
    """Share of places selected, by what was set.

    Args:
        selections: spaces of inhibition coordinates.
        controls: random subspaces, shown as one row.
        clean: [list, place] share of prompts in which the mover looks at the place most when
            nothing is set.
        seed: of the bootstrap.

    Returns:
        Columns: what, dimensions, points, mean, low, high (share of places on the other half, 95%
        over lists), found (on the half searched), and "place 1", ... (share of prompts by place).
    """
    rows = [("nothing set", 0, 0, clean, None)]
    for s in selections:
        what = f"{s.dimensions} coordinate" + ("s" if s.dimensions > 1 else "")
        rows.append((what, s.dimensions, len(s.points), s.reported, float(s.found.mean())))
    if controls:
        reported = np.mean([c.reported for c in controls], axis=0)
        found = float(np.mean([c.found.mean() for c in controls]))
        first = controls[0]
        rows.append(
            (f"{first.dimensions} random", first.dimensions, len(first.points), reported, found)
        )
    table: dict[str, list] = {
        name: [row[i] for row in rows] for i, name in enumerate(("what", "dimensions", "points"))
    }
    intervals = [mean_interval(row[3].mean(1), seed=seed) for row in rows]
    for i, end in enumerate(("mean", "low", "high")):
        table[end] = [interval[i] for interval in intervals]
    table["found"] = [row[4] for row in rows]
    for place in range(clean.shape[1]):
        table[f"place {place + 1}"] = [float(row[3][:, place].mean()) for row in rows]
    return table


def length_table(
    selections: Sequence[Selection], on_target: Sequence[Float[np.ndarray, " list"]], *, seed: int
) -> dict[str, list]:
    """The same search on lists of several lengths, and what the mover does of itself.

    Args:
        selections: one for each length.
        on_target: for each length, share of each list's prompts in which the mover looks most at
            the item left out when nothing is set.
        seed: of the bootstrap.

    Returns:
        Columns: length, chance, and mean, low, high (95%, over lists) of the share of places
        selected on the other half ("selected mean", ...) and of the prompts in which the mover
        looks at the item left out of itself ("itself mean", ...).
    """
    lengths = [s.reported.shape[1] for s in selections]
    table: dict[str, list] = {"length": lengths, "chance": [1 / n for n in lengths]}
    for name, intervals in (
        ("selected", [share(s, seed=seed) for s in selections]),
        ("itself", [mean_interval(hits, seed=seed) for hits in on_target]),
    ):
        for i, end in enumerate(("mean", "low", "high")):
            table[f"{name} {end}"] = [interval[i] for interval in intervals]
    return table


def looks_at_target(run: Recalled) -> Float[np.ndarray, " list"]:
    """Share of each list's prompts in which the mover looks most at the item left out."""
    return run.lists(run.looks.argmax(-1) == run.prompts.target).mean(1)


def clean_hits(run: Recalled) -> Float[np.ndarray, "list item"]:
    """Share of each list's prompts in which the mover looks at a place most, nothing set."""
    each = run.looks.argmax(-1)[:, None] == torch.arange(run.length, device=run.looks.device)
    return run.lists(each).mean(1)
