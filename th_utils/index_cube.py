"""Three inhibition coordinates and the item attended to: the table behind the cube (chapter 06)."""

from __future__ import annotations

from collections.abc import Sequence

from th_utils.errors import CompanionError
from th_utils.index_space import Selection
from th_utils.recall import Recalled
from th_utils.results import Results
from th_utils.selection_tables import point_table

AXES = 3
PROMPTS = 80  # shown of each length, about: whole lists, and one at least
SET, ITSELF = "set", "itself"
DECIMALS = 3


def index_cube(
    selections: Sequence[Selection], runs: Sequence[Recalled], names: Sequence[str]
) -> Results:
    """Which item the mover attends to most, where its inhibition coordinates were set, and unset.

    Args:
        selections: grids in three coordinates, one for each list length searched.
        runs: what the model does of itself, one for each length measured.
        names: of the three axes.

    Returns:
        Columns: what ("set": a point of the grid; "itself": a prompt in which nothing was set),
        length (of the list), axis 1 to axis 3 (coordinates), item (attended to most, from 1; of a
        point, in the largest share of prompts), share (of a point; None of a prompt), chosen (the
        places that a point was chosen for, such as "3, 4"; empty for most), left_out (the item
        that a prompt asks for, from 1; None of a point). By length, points before prompts. Meta:
        names, and reached (by length, the share of places that the chosen points select on the
        half of the prompts that they were not chosen on).

    Raises:
        CompanionError: a grid in other than three coordinates, or two of one length.
    """
    axes = [f"axis {k + 1}" for k in range(AXES)]
    columns: dict[str, list] = {
        name: [] for name in ("what", "length", *axes, "item", "share", "chosen", "left_out")
    }
    grids = {selection.shares.shape[1]: selection for selection in selections}
    if len(grids) < len(selections):
        raise CompanionError("two grids of one list length: give one for each length")
    for selection in selections:
        if selection.dimensions != AXES:
            raise CompanionError(f"a grid in {selection.dimensions} coordinates: expected {AXES}")
    measured = {run.length: run for run in runs}
    for length in sorted(grids.keys() | measured.keys()):
        if length in grids:
            _add(columns, what=SET, left_out=None, **point_table(grids[length]))
        if length in measured:
            _add(columns, what=ITSELF, share=None, chosen="", **_prompts(measured[length]))
    for axis in axes:
        columns[axis] = [round(float(x), DECIMALS) for x in columns[axis]]
    reached = {str(n): float(grids[n].reported.mean()) for n in sorted(grids)}
    return Results(columns, dict(names=list(names[:AXES]), reached=reached))


def _prompts(run: Recalled) -> dict[str, list]:
    """Coordinates of some prompts, the item attended to most, and the one left out."""
    n = max(1, PROMPTS // run.length) * run.length
    table: dict[str, list] = {"length": [run.length] * len(run.looks[:n])}
    for axis in range(AXES):
        table[f"axis {axis + 1}"] = run.coordinates[:n, axis].tolist()
    table["item"] = (run.looks[:n].argmax(-1) + 1).tolist()
    table["left_out"] = (run.prompts.target[:n] + 1).tolist()
    return table


def _add(columns: dict[str, list], **more: object) -> None:
    """Add rows; a single value stands for all of them."""
    n = len(more["length"])  # type: ignore[arg-type]
    for name, column in columns.items():
        column += more[name] if isinstance(more[name], list) else [more[name]] * n
