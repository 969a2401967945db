"""How much of the answer the line could move at all, and where its effect is lost (chapter 04).

Exploratory: looked at after the chapter's claims had been measured. The end position is given what
it has in another prompt: one that says the same names in the other order (so that the right name
stands in the other place), or one in which the two names are exchanged everywhere (so that the
right place holds the other name). What a line carries that points at a place moves with the first
and not with the second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils import steering
from th_utils.bootstrap import mean_interval
from th_utils.components import random_directions, ratio
from th_utils.engine import from_bridge
from th_utils.line import Line, by_order
from th_utils.line_controls import Control, added
from th_utils.line_steering import (
    Preference,
    against,
    between_ends,
    clean,
    moved,
    preference,
)
from th_utils.patching import answer_logits, direct_query, end_pattern, head_outputs
from th_utils.replay import Attention, Replay
from th_utils.roles import Head
from th_utils.runs import CleanRun, clean_run
from th_utils.steering import Axes
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi

DONORS = ("other order", "names exchanged")


def names_exchanged(prompts: ioi.IOIPrompts) -> Int[Tensor, "prompt pos"]:
    """Tokens with the two names exchanged wherever they stand."""
    tokens, io, s = prompts.tokens, prompts.io[:, None], prompts.s[:, None]
    return torch.where(tokens == io, s, torch.where(tokens == s, io, tokens))


def donors(bridge: Any, run: CleanRun) -> dict[str, CleanRun]:
    """For each prompt the end position of its two counterparts, by `DONORS`.

    Only the residual stream and the heads' outputs at the end are exchanged in the runs returned.
    """
    prompts = run.prompts
    by_order(run.logit_difference, prompts.abba)  # refuses prompts that are no pairs
    twin = torch.arange(len(prompts), device=run.z.device).view(-1, 2).flip(1).reshape(-1)
    other = clean_run(bridge, dataclasses.replace(prompts, tokens=names_exchanged(prompts)))
    parts = ((run.resid[:, twin], run.z[:, twin]), (other.resid, other.z))
    return {
        name: dataclasses.replace(run, resid=resid, z=z)
        for name, (resid, z) in zip(DONORS, parts, strict=True)
    }


def with_coordinates(
    bridge: Any, run: CleanRun, donor: CleanRun, axes: Axes, mover: Head
) -> Preference:
    """The preference when coordinates are those of the donor, the rest of the outputs kept."""
    given = steering.coordinates(bridge, donor, axes)[None]
    return moved(bridge, run, axes, given, mover, how="replace")


@torch.no_grad()
def with_residual(
    bridge: Any, run: CleanRun, donor: CleanRun, layer: int, mover: Head
) -> Preference:
    """The preference when the donor's residual stream enters a block at the end position."""
    engine, end = Replay(from_bridge(bridge)), run.prompts.positions["end"]
    seen: list[Tensor] = []

    def listener(at: int, attention: Attention) -> None:
        if at == mover[0]:
            seen.append(end_pattern(attention, mover[1], end))

    resid = donor.resid[layer][None, :, None]
    final = engine.advance(run.past, layer, resid, end, listener=listener, check=False)
    logits = answer_logits(engine.model, run, final)
    return preference(run, seen[0], logits[..., 0] - logits[..., 1])


def exchanges(
    bridge: Any, run: CleanRun, svd: HeadSVD, lines: Sequence[Line], mover: Head, *, seed: int
) -> dict[str, list]:
    """What moves when more and more of the end position is that of another prompt.

    1 stands for a preference that turns wholly to the other name, 0 for one that stays.

    Returns:
        Columns: given, donor, and value, low, high of the share of the mover's preference that
        moves ("attention value", ...) and of the logit difference ("answer value", ...).
    """
    alone = joint([lines[0].axes])
    cases = {"the leading component": alone}
    if len(lines) > 1:
        cases["the leading components of all inhibition heads"] = joint([x.axes for x in lines])
    cases["the strongest inhibition head"] = whole_head(svd, lines[0].head)
    if len(lines) > 1:
        heads = [whole_head(svd, line.head) for line in lines]
        cases["all inhibition heads"] = joint(heads)
    after_all = max(line.head[0] for line in lines) + 1
    before, abba = clean(run, mover), run.prompts.abba
    rows: list[tuple[Any, ...]] = []
    for name, donor in donors(bridge, run).items():
        found = {
            given: with_coordinates(bridge, run, donor, axes, mover)
            for given, axes in cases.items()
        }
        found["all that is written by then"] = with_residual(bridge, run, donor, after_all, mover)
        for given, after in found.items():
            row: tuple[Any, ...] = (given, name)
            for quantity in ("attention", "logits"):
                was, now = (
                    ioi.pair_means(against(getattr(p, quantity), abba)) for p in (before, after)
                )
                row += tuple(ratio((was - now) / 2, was, seed=seed))
            rows.append(row)
    names = ["given", "donor"]
    for name in ("attention", "answer"):
        names += [f"{name} {end}" for end in ("value", "low", "high")]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def joint(axes: Sequence[Axes]) -> Axes:
    """Several axes as one."""
    return Axes(
        tuple(head for each in axes for head in each.heads),
        torch.cat([each.directions for each in axes]),
        tuple(name for each in axes for name in each.names),
    )


def whole_head(svd: HeadSVD, head: Head) -> Axes:
    """All components of a head, so that setting them sets its output."""
    return steering.component_axes(svd, [(*head, k) for k in range(svd.V.shape[-1])])


def in_query(
    bridge: Any,
    run: CleanRun,
    directions: Float[Tensor, "case d_model"],
    reach: float,
    mover: Head,
) -> Float[Tensor, "prompt case"]:
    """Change of the mover's attention to the first minus the second name, in its query alone.

    Each direction (of length 1) is added to the input of the mover's query over the range from
    -reach to reach; the blocks between are as in the clean run.
    """
    delta = (reach * directions)[None].expand(len(run.prompts), -1, -1)
    low, high = (
        preference(run, pattern, pattern[..., 0]).attention
        for pattern in (direct_query(bridge, run, *mover, sign * delta) for sign in (-1, 1))
    )
    return high - low


def ranges(
    bridge: Any,
    run: CleanRun,
    svd: HeadSVD,
    line: Line,
    mover: Head,
    factors: Sequence[float | int],
    *,
    draws: int,
    seed: int,
    known: Mapping[float | int, Control] | None = None,
) -> dict[str, list]:
    """Line and random directions of the head's write space, added over several ranges.

    With the same draws and seed the directions are those of `line_controls.controls`; `known` has
    what they do over a range that it was asked for.

    Returns:
        Columns: factor (end of the sweep in mean coordinates), and for everything recomputed
        ("full") and for the mover's query alone ("query"): value, low, high of the change of the
        mover's attention, and random, the mean size of that of random directions.
    """
    random = random_directions(svd, line.head, draws, seed=seed)
    rows = []
    for factor in factors:
        end = factor * line.spread
        ends = torch.tensor([-end, end]).to(line.axes.directions)[:, None, None]
        full = between_ends(moved(bridge, run, line.axes, ends, mover).attention)
        drawn = (known or {}).get(factor) or added(bridge, run, line.head, random, mover, end)
        query = in_query(bridge, run, torch.cat([line.axes.directions, random]), end, mover)
        row: list[float] = [float(factor)]
        row += [*mean_interval(full, seed=seed), float(np.abs(drawn.attention.mean(0)).mean())]
        row += mean_interval(ioi.pair_means(query[:, 0]), seed=seed)
        row.append(float(query[:, 1:].mean(0).abs().mean()))
        rows.append(row)
    names = ["factor"]
    for name in ("full", "query"):
        names += [f"{name} {end}" for end in ("value", "low", "high", "random")]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def components_table(
    bridge: Any, run: CleanRun, svd: HeadSVD, line: Line, mover: Head, reach: float
) -> dict[str, list]:
    """What every component of the head could move in the mover's query, and what it is used for.

    Returns:
        Columns: component, change (of the mover's attention when it is added over the range, its
        query alone), apart (distance of the two orders' mean coordinates), leading.
    """
    V = svd.V[line.head]
    change = in_query(bridge, run, V.mT, reach, mover).mean(0).abs()
    found, abba = head_outputs(bridge, run, *line.head) @ V, run.prompts.abba
    apart = (found[abba].mean(0) - found[~abba].mean(0)).abs()
    numbers = list(range(V.shape[1]))
    return dict(
        component=numbers,
        change=change.tolist(),
        apart=apart.tolist(),
        leading=[k == line.component for k in numbers],
    )
