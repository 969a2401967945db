r"""Where prompts lie on the line along which an inhibition head's leading component writes.

A component writes along one direction :math:`v`, so all it says at the end position is one number,
:math:`o \cdot v` (paper A, Figure 3, left; chapter 04). The component is chosen and its sign is
fixed on one half of templates and names: prompts that say the repeated name second (ABBA) have the
larger mean there. Everything is reported on the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from th_utils import steering
from th_utils.bootstrap import Interval, bootstrap, mean_interval
from th_utils.components import direct_effects, leading
from th_utils.errors import CompanionError
from th_utils.roles import Head, label
from th_utils.runs import CleanRun
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi


@dataclass(frozen=True)
class Line:
    """The line of one component, as the half of the prompts it was chosen on has it."""

    head: Head
    component: int
    axes: steering.Axes  # one direction, of length 1
    abba: float  # mean coordinate of ABBA prompts, the larger of the two
    baba: float  # and of BABA prompts

    @property
    def name(self) -> str:
        """Layer, head and component."""
        return f"{label(self.head)}.{self.component}"

    @property
    def spread(self) -> float:
        """Mean size of the two orders' mean coordinates, in residual-stream units."""
        return (abs(self.abba) + abs(self.baba)) / 2

    def natural(
        self, abba: Bool[Tensor, " prompt"], *, other: bool = False
    ) -> Float[Tensor, " prompt"]:
        """The mean coordinate of each prompt's own order, or of the other one."""
        return torch.where(abba ^ other, self.abba, self.baba)


def choose(bridge: Any, run: CleanRun, svd: HeadSVD, sender: Head, mover: Head) -> Line:
    """The component of a head whose removal from the mover's query costs it most inhibition.

    Args:
        bridge: `TransformerBridge` in compatibility mode.
        run: clean run of the half to choose on.
        svd: SVD of the OV matrices.
        sender, mover: the heads, the mover in a later layer.
    """
    effects = direct_effects(bridge, run, sender, mover, svd.V[sender].mT)
    (component,) = leading(effects, 1)
    axes = steering.component_axes(svd, [(*sender, component)])
    found, abba = steering.coordinates(bridge, run, axes)[:, 0], run.prompts.abba
    means = [float(found[order].mean()) for order in (abba, ~abba)]
    if means[0] < means[1]:
        axes = steering.Axes(axes.heads, -axes.directions, axes.names)
        means = [-mean for mean in means]
    return Line(sender, component, axes, *means)


def choose_all(
    bridge: Any, run: CleanRun, svd: HeadSVD, senders: Sequence[Head], mover: Head
) -> list[Line]:
    """`choose` for each inhibition head that comes before the mover.

    Raises:
        CompanionError: there is none.
    """
    before = [sender for sender in senders if sender[0] < mover[0]]
    if not before:
        raise CompanionError(
            "no inhibition head before the main mover was found in this model: there is no line "
            "to look at (chapter 01 shows which roles it has)"
        )
    return [choose(bridge, run, svd, sender, mover) for sender in before]


def coordinates(bridge: Any, run: CleanRun, line: Line) -> Float[Tensor, " prompt"]:
    """Where each prompt of a clean run lies on the line, in residual-stream units."""
    return steering.coordinates(bridge, run, line.axes)[:, 0]


def by_order(
    values: Float[Tensor, " prompt"], abba: Bool[Tensor, " prompt"]
) -> Float[np.ndarray, "pair 2"]:
    """Values of the ABBA and of the BABA prompt of each pair.

    Raises:
        CompanionError: the prompts are no pairs of one of each.
    """
    if len(abba) % 2 or bool((abba[::2] == abba[1::2]).any()):
        raise CompanionError("the prompts are not pairs of an ABBA and a BABA prompt")
    paired, first = values.double().reshape(-1, 2), abba[::2, None]
    return torch.where(first, paired, paired.flip(1)).cpu().numpy()


def area(pairs: Float[np.ndarray, "pair 2"], *, seed: int) -> Interval:
    """Probability that an ABBA prompt's coordinate exceeds a BABA prompt's (ties count half).

    Any prompt of the one order is compared with any of the other. The interval is over pairs.
    """
    wins = _wins(pairs)

    def share(drawn: np.ndarray) -> np.ndarray:
        counts = _counts(drawn, len(wins))
        return ((counts @ wins) * counts).sum(-1) / len(wins) ** 2

    return _over_pairs(share, len(pairs), seed)


def lowest_area(
    pairs: Float[np.ndarray, "pair 2"], template: Int[np.ndarray, " pair"], *, seed: int
) -> Interval:
    """The lowest area of any template, prompts compared within a template only.

    The interval is over pairs of prompts; a template that a resample lacks does not count in it.
    Being a minimum it leans downwards: its upper end may lie below one where the value is one.
    """
    groups = [np.flatnonzero(template == t) for t in np.unique(template)]
    wins = [_wins(pairs[group]) for group in groups]

    def lowest(drawn: np.ndarray) -> np.ndarray:
        counts = _counts(drawn, len(pairs))
        found = []
        for group, won in zip(groups, wins, strict=True):
            of = counts[:, group]
            n = of.sum(-1) ** 2
            share = ((of @ won) * of).sum(-1) / np.maximum(n, 1)
            found.append(np.where(n > 0, share, np.inf))
        return np.min(found, axis=0)

    return _over_pairs(lowest, len(pairs), seed)


def right_side(pairs: Float[np.ndarray, "pair 2"]) -> Float[np.ndarray, " pair"]:
    """Share of each pair that lies on its order's side of the origin, ABBA above, BABA below."""
    return ((pairs[:, 0] > 0).astype(float) + (pairs[:, 1] < 0)) / 2


def prompt_table(
    found: Float[Tensor, " prompt"], prompts: ioi.IOIPrompts, *, seed: int
) -> tuple[dict[str, list], dict[str, list]]:
    """Every prompt's coordinate; and areas and sides, overall and by template.

    Returns:
        Columns template (number from 1), order, coordinate. And columns template (0 for all),
        pairs (their number), auc, auc_low, auc_high, side, side_low, side_high.
    """
    pairs, template = by_order(found, prompts.abba), (prompts.template[::2] + 1).cpu().numpy()
    rows = []
    for number in (0, *np.unique(template).tolist()):
        of = pairs if number == 0 else pairs[template == number]
        side = mean_interval(right_side(of), seed=seed)
        rows.append((number, len(of), *area(of, seed=seed), *side))
    names = ("template", "pairs", "auc", "auc_low", "auc_high", "side", "side_low", "side_high")
    points = dict(
        template=(prompts.template + 1).tolist(),
        order=[ioi.ORDERS[0] if abba else ioi.ORDERS[1] for abba in prompts.abba.tolist()],
        coordinate=found.tolist(),
    )
    return points, {name: [row[i] for row in rows] for i, name in enumerate(names)}


def heads_table(bridge: Any, run: CleanRun, lines: Sequence[Line], *, seed: int) -> dict[str, list]:
    """How well the leading component of each of several heads tells the orders apart.

    Returns:
        Columns: component, abba, baba (mean coordinates on `run`), auc, auc_low, auc_high, side,
        side_low, side_high.
    """
    rows = []
    for line in lines:
        pairs = by_order(coordinates(bridge, run, line), run.prompts.abba)
        side = mean_interval(right_side(pairs), seed=seed)
        rows.append((line.name, *pairs.mean(0).tolist(), *area(pairs, seed=seed), *side))
    names = ("component", "abba", "baba", "auc", "auc_low", "auc_high")
    names += ("side", "side_low", "side_high")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _wins(pairs: np.ndarray) -> np.ndarray:
    """1 where the ABBA prompt of pair i lies above the BABA prompt of pair j, 1/2 where level."""
    above, below = pairs[:, :1], pairs[None, :, 1]
    return (above > below) + 0.5 * (above == below)


def _counts(drawn: np.ndarray, n: int) -> np.ndarray:
    """How often each pair was drawn in each resample."""
    rows = np.arange(len(drawn))[:, None] * n
    return np.bincount((drawn + rows).ravel(), minlength=len(drawn) * n).reshape(-1, n)


def _over_pairs(statistic: Callable[[np.ndarray], np.ndarray], n: int, seed: int) -> Interval:
    """Bootstrap of a statistic of the indices drawn."""
    return bootstrap(statistic, [np.arange(n)], seed=seed, batched=True)
