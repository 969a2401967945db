r"""How the places of a list lie among the inhibition coordinates, and how they crowd (chapter 06).

Nothing is set here: these are the coordinates that the model has by itself at the end of a prompt,
by the place of the item left out. The paper's measure of crowding is not known to us:
*reconstruction*.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from th_utils.bootstrap import Interval
from th_utils.errors import CompanionError
from th_utils.recall import Recalled, over_lists

MOST = 10.0  # the largest share that is told from larger ones


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


def coordinate_table(
    runs: Sequence[Recalled], names: Sequence[str], *, seed: int
) -> dict[str, list]:
    """Where the coordinates lie by the place of the item left out.

    Returns:
        Columns: length, place (from 1), axis (from 1), name, mean, low, high (the middle half of
        the lists), d (discriminability from the next place in the plane of the first two axes,
        None at the last place), and of all places of the length d mean, d low, d high (95%, over
        lists).
    """
    rows = []
    for run in runs:
        flat = plane(run)
        apart = [*discriminability(flat).tolist(), None]
        mean_apart = over_lists(lambda x: float(discriminability(x).mean()), [flat], seed=seed)
        by_place = plane(run, len(names))
        low, high = np.quantile(by_place, [0.25, 0.75], axis=0)
        for place in range(run.length):
            for axis, name in enumerate(names):
                mean = float(by_place[:, place, axis].mean())
                ends = float(low[place, axis]), float(high[place, axis])
                row = (run.length, place + 1, axis + 1, name, mean, *ends, apart[place])
                rows.append((*row, *mean_apart))
    columns = ("length", "place", "axis", "name", "mean", "low", "high", "d")
    columns += ("d mean", "d low", "d high")
    return {column: [row[i] for row in rows] for i, column in enumerate(columns)}
