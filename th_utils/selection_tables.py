"""What grid searches found, as tables (chapter 06)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from th_utils.bootstrap import crossed, crossed_mean, mean_interval
from th_utils.index_space import Selection, share


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
        over lists, and over the random subspaces drawn), found (on the half searched), and
        "place 1", ... (share of prompts by place).
    """
    rows = [("nothing set", 0, 0, clean, None)]
    for s in selections:
        what = f"{s.dimensions} coordinate" + ("s" if s.dimensions > 1 else "")
        rows.append((what, s.dimensions, len(s.points), s.reported, float(s.found.mean())))
    intervals = [mean_interval(row[3].mean(1), seed=seed) for row in rows]
    if controls:
        reported = np.stack([c.reported for c in controls])
        found = float(np.mean([c.found.mean() for c in controls]))
        first, drawn = controls[0], reported.mean(2).T
        rows.append(
            (f"{first.dimensions} random", first.dimensions, len(first.points), reported.mean(0),
             found)
        )  # fmt: skip
        intervals.append(
            crossed(lambda *picked: crossed_mean(drawn, *picked), drawn.shape, seed=seed)
        )
    table: dict[str, list] = {
        name: [row[i] for row in rows] for i, name in enumerate(("what", "dimensions", "points"))
    }
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
