r"""Prompts moved along the line of an inhibition component (paper A, Figure 3, right; chapter 04).

At the end position a vector :math:`\alpha v` is added to the residual stream where the head
writes, or put in place of the head's output; everything after is recomputed. What is followed is
which of the two names, by their place in the prompt, the main mover attends to and the model
prefers: the *first* name is whichever of IO and S1 stands first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from th_utils.bootstrap import bootstrap, mean_interval
from th_utils.line import Line, by_order
from th_utils.patching import Replayed
from th_utils.roles import Head
from th_utils.runs import CleanRun
from th_utils.steering import Axes, How, steer
from th_utils.tasks import ioi

QUANTITIES = ("first", "second", "logits")
WAYS: tuple[tuple[How, str], ...] = (("add", "added"), ("only", "in place of the output"))


@dataclass(frozen=True)
class Preference:
    """Which name is preferred, by its place in the prompt, case by case."""

    first: Float[Tensor, "prompt case"]  # the mover's attention from the end to the first name
    second: Float[Tensor, "prompt case"]
    logits: Float[Tensor, "prompt case"]  # logit(first name) - logit(second name), nats

    @property
    def attention(self) -> Float[Tensor, "prompt case"]:
        """Attention to the first name minus that to the second."""
        return self.first - self.second


def clean(run: CleanRun, mover: Head) -> Preference:
    """The preference of a clean run, one case."""
    return preference(
        run, run.pattern["end"][mover[0], :, mover[1]][:, None], run.logit_difference[:, None]
    )


def moved(
    bridge: Any,
    run: CleanRun,
    axes: Axes,
    values: Float[Tensor, "case #prompt axis"],
    mover: Head,
    *,
    how: How = "add",
) -> Preference:
    """The preference after `steering.steer`."""
    after: Replayed = steer(bridge, run, axes, values, how=how, watch=[mover])
    return preference(run, after.patterns[mover], after.logit_difference)


def preference(
    run: CleanRun, pattern: Float[Tensor, "prompt case pos"], logits: Float[Tensor, "prompt case"]
) -> Preference:
    """Patterns of a mover and logit differences (IO - S), by the places of the names."""
    at, abba = run.prompts.positions, run.prompts.abba
    io, s1 = (
        pattern.gather(-1, at[role][:, None, None].expand(-1, pattern.shape[1], 1))[..., 0]
        for role in ("IO", "S1")
    )
    first = abba[:, None]
    return Preference(
        torch.where(first, io, s1), torch.where(first, s1, io), torch.where(first, logits, -logits)
    )


def sweep_points(reach: float, points: int) -> Float[np.ndarray, " case"]:
    """Values of alpha from one end to the other, symmetric about 0."""
    return np.linspace(-reach, reach, points)


def sweep(
    bridge: Any, run: CleanRun, line: Line, mover: Head, alphas: Float[np.ndarray, " case"]
) -> dict[How, Preference]:
    """The preference along the line, for each way of moving along it."""
    values = torch.as_tensor(alphas).to(line.axes.directions)[:, None, None]
    return {how: moved(bridge, run, line.axes, values, mover, how=how) for how, _ in WAYS}


def sweep_table(
    found: dict[How, Preference],
    alphas: Float[np.ndarray, " case"],
    prompts: ioi.IOIPrompts,
    *,
    seed: int,
) -> dict[str, list]:
    """Means along the sweep, for each order of the prompts, intervals over prompts of an order.

    Returns:
        Columns: how, order, quantity (of `QUANTITIES`), alpha, mean, low, high.
    """
    rows = []
    for (how, _), quantity in ((w, q) for w in WAYS for q in QUANTITIES):
        values = getattr(found[how], quantity)
        for case, alpha in enumerate(alphas):
            of_order = by_order(values[:, case], prompts.abba).T
            for order, of in zip(ioi.ORDERS, of_order, strict=True):
                rows.append((how, order, quantity, float(alpha), *mean_interval(of, seed=seed)))
    names = ("how", "order", "quantity", "alpha", "mean", "low", "high")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def between_ends(values: Float[Tensor, "prompt case"]) -> Float[np.ndarray, " pair"]:
    """Change from the first case to the last, means over the orders of each pair."""
    return ioi.pair_means(values[:, -1] - values[:, 0])


def orders_apart(
    preference: Preference, abba: Bool[Tensor, " prompt"]
) -> Float[np.ndarray, " pair"]:
    """Difference of logit(first) - logit(second) between the ABBA and the BABA prompt of a pair."""
    pairs = by_order(preference.logits[:, 0], abba)
    return pairs[:, 0] - pairs[:, 1]


def against(
    values: Float[Tensor, "prompt case"], abba: Bool[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """First minus second name made right minus wrong name, where the order is spoken against.

    That is the first case (the low end of the line) for ABBA prompts, the last for BABA prompts.
    """
    return torch.where(abba, values[:, 0], -values[:, -1])


def exchanged(bridge: Any, run: CleanRun, line: Line, mover: Head) -> Preference:
    """Each prompt's coordinate set to the mean of the other order, the rest of the output kept."""
    other = line.natural(run.prompts.abba, other=True).to(line.axes.directions)
    return moved(bridge, run, line.axes, other[None, :, None], mover, how="replace")


def turned(
    before: Preference,
    after: dict[str, Preference],
    abba: Bool[Tensor, " prompt"],
    *,
    seed: int,
) -> dict[str, list]:
    """How often attention and answer change sides when prompts are moved against their order.

    Args:
        before: the clean run's.
        after: by name; see `against` for the case used.
        abba: order of each prompt.

    Returns:
        Columns: way, and value, low, high of the share of prompts in which the mover attended more
        to the right name and no longer does ("attention value", ...), of the same for the logits
        ("answer value", ...), and of the mean logit difference left ("left value", ..., nats).
        Intervals over pairs of prompts.
    """
    rows = []
    for way, preference in {"": before, **after}.items():
        row: list[Any] = [way or "as it is"]
        for name in ("attention", "logits"):
            was = against(getattr(before, name), abba) > 0
            turned = was & (against(getattr(preference, name), abba) <= 0)
            row += _share(turned, was, seed)
        row += mean_interval(ioi.pair_means(against(preference.logits, abba)), seed=seed)
        rows.append(row)
    names = ["way"]
    for name in ("attention", "answer", "left"):
        names += [f"{name} {end}" for end in ("value", "low", "high")]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _share(part: Tensor, of: Tensor, seed: int) -> Sequence[float | None]:
    """A share of prompts, interval over pairs; nothing where no prompt counts."""
    if not bool(of.any()):
        return (None, None, None)
    return bootstrap(
        lambda p, n: p.mean(axis=1) / np.maximum(n.mean(axis=1), 1e-12),
        [ioi.pair_means(x.double()) for x in (part, of)],
        seed=seed,
        batched=True,
    )


def heads_moved(
    bridge: Any, run: CleanRun, lines: Sequence[Line], mover: Head, reach: float, *, seed: int
) -> dict[str, list]:
    """Change of the mover's attention and of the logits between the ends, head by head.

    Returns:
        Columns: component, and value, low, high of both ("attention value", ..., "logits value").
        Each line is added over `reach` times its own spread; with several, a last row has all of
        them at once.
    """
    sets = [[line] for line in lines] + ([list(lines)] if len(lines) > 1 else [])
    rows = []
    for some in sets:
        directions = torch.cat([line.axes.directions for line in some])
        names = tuple(line.name for line in some)
        axes = Axes(tuple(line.head for line in some), directions, names)
        ends = torch.tensor([reach * line.spread for line in some]).to(directions)
        after = moved(bridge, run, axes, torch.stack([-ends, ends])[:, None], mover)
        name = names[0] if len(some) == 1 else "all at once"
        changes = [between_ends(x) for x in (after.attention, after.logits)]
        rows.append((name, *(end for x in changes for end in mean_interval(x, seed=seed))))
    names = ["component"]
    for name in ("attention", "logits"):
        names += [f"{name} {end}" for end in ("value", "low", "high")]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
