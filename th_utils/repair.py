"""Steering that repairs recall: which point to set the inhibition coordinates to, found by search.

For lists of one length, each place that the answer can have gets a point of its own, found on the
split ``find`` (other nouns, other templates) and used on the split ``report``. The search knows
nothing of what the coordinates mean: it tries points within a multiple of the range that they have
by themselves, and narrows down around the best. How the paper searched is not known to us:
*reconstruction*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from th_utils import checks
from th_utils.errors import CompanionError
from th_utils.list_trees import engine_of
from th_utils.patching import Replayed
from th_utils.replay import Attention
from th_utils.runs import CleanRun
from th_utils.steering import Axes, Head, coordinates, steer
from th_utils.svd import HeadSVD
from th_utils.tasks.lists import ListPrompts

How = Literal["replace", "add"]

SHRINK = 0.4  # each round looks within this share of the one before


class Region(NamedTuple):
    """Where points are looked for: within `reach` of `centre`, axis by axis."""

    centre: Float[Tensor, " axis"]
    reach: Float[Tensor, " axis"]


@dataclass(frozen=True)
class Searched:
    """Points tried on lists of one length. The first leaves the prompts as they are: no numbers."""

    points: Float[Tensor, "case axis"]
    scores: Float[Tensor, "list place case"]


class Chosen(NamedTuple):
    """One point for each place of the answer, and one for all."""

    by_place: Float[Tensor, "place axis"]
    common: Float[Tensor, " axis"]


def region(
    natural: Float[Tensor, "prompt axis"], how: How, reach: Float[Tensor, " axis"]
) -> Region:
    """Around the middle of the natural coordinates, or around zero for what is added."""
    middle = (natural.amin(0) + natural.amax(0)) / 2
    return Region(middle if how == "replace" else torch.zeros_like(middle), reach)


def reach(natural: Float[Tensor, "prompt axis"], extent: float | int) -> Float[Tensor, " axis"]:
    """`extent` times half the range that the widest of the coordinates has by itself.

    All axes get the same, so that random directions, along which outputs vary less, are searched as
    far out.
    """
    half = (natural.amax(0) - natural.amin(0)) / 2
    return extent * half.max().expand_as(half)


def margins(
    logits: Float[Tensor, "prompt case item"], prompts: ListPrompts
) -> Float[Tensor, "prompt case"]:
    """Logit of the right item minus that of the best other one, in nats."""
    right = functional.one_hot(prompts.target, prompts.length).bool()[:, None]
    others = logits.masked_fill(right, -torch.inf).amax(-1)
    return logits.masked_fill(~right, -torch.inf).amax(-1) - others


def scores(found: Replayed, prompts: ListPrompts) -> Float[Tensor, "prompt case"]:
    """What a search makes larger: 1 for the right top token, plus a smooth share for the margin.

    Accuracy alone takes few values on few lists; the logistic function of the margin over the
    other items tells near misses apart.
    """
    hit = (found.top == prompts.right[:, None]).to(found.logits.dtype)
    return hit + margins(found.logits, prompts).sigmoid()


def means_by_place(
    x: Float[Tensor, "prompt *rest"], target: Int[Tensor, " prompt"], length: int
) -> Float[Tensor, "place *rest"]:
    """Means over the prompts whose answer has each place in turn."""
    return torch.stack([x[target == place].mean(0) for place in range(length)])


def clean(run: CleanRun) -> Replayed:
    """A run as if it had been replayed with one case that changes nothing."""
    top = torch.where(run.correct, run.prompts.right, -1)
    return Replayed(run.logits[:, None], {}, top[:, None])


def put(
    bridge: Any,
    run: CleanRun,
    axes: Axes,
    points: Float[Tensor, "case prompt axis"],
    how: How,
) -> Replayed:
    """Steer; where a point is not a number, the coordinates stay as they are."""
    nothing = torch.zeros(len(run.prompts), len(axes)).to(points)
    if how == "replace":
        nothing = coordinates(bridge, run, axes)
    values = torch.where(points.isnan(), nothing, points)
    return steer(bridge, run, axes, values, how=how, vocabulary=True, engine=engine_of(bridge))


def search(
    bridge: Any,
    run: CleanRun,
    axes: Axes,
    within: Region,
    *,
    how: How,
    points: int,
    rounds: int,
    seed: int,
) -> Searched:
    """Try points on every prompt, whatever the place of its answer.

    First `points` points of a low-discrepancy sequence (Sobol 1967) in the region, then in each of
    `rounds` rounds half as many around the one that did best for all places together, ever closer.

    Raises:
        CompanionError: fewer than two points, or a region that does not fit the axes.
    """
    if points < 2 or rounds < 0:
        raise CompanionError(f"{points} points and {rounds} rounds: give at least 2 and 0")
    checks.shape("the region's centre", within.centre, (len(axes),), "axis")
    prompts = run.prompts
    sobol = torch.quasirandom.SobolEngine(len(axes), scramble=True, seed=seed)
    tried = [torch.full_like(within.centre[None], torch.nan)]
    found = [scores(clean(run), prompts)]
    best, width = within.centre, 1.0
    for turn in range(1 + rounds):
        unit = 2 * sobol.draw(points if turn == 0 else (points + 1) // 2) - 1
        new = best + unit.to(within.reach) * within.reach * width
        each = new[:, None].expand(-1, len(prompts), -1)
        tried.append(new)
        found.append(scores(put(bridge, run, axes, each, how), prompts))
        best = torch.cat(tried[1:])[int(torch.cat(found[1:], dim=1).mean(0).argmax())]
        width *= SHRINK
    in_order = torch.cat(found, dim=1).unflatten(0, (-1, prompts.length))
    place = prompts.target.view(-1, prompts.length, 1).expand_as(in_order)
    return Searched(torch.cat(tried), torch.empty_like(in_order).scatter_(1, place, in_order))


def pooled(scores: Float[Tensor, "list place case"], own: float) -> Float[Tensor, "place case"]:
    """Mean scores of each place, drawn towards the mean over all places.

    Few lists say little of a single place: `own` is the weight of what they say, the rest is what
    the same point does for all places.
    """
    mean = scores.mean(0)
    return own * mean + (1 - own) * mean.mean(0)


def left_out_score(scores: Float[Tensor, "list place case"], own: float) -> float:
    """Score of points chosen for each list by what the other lists say.

    With a single list there are no others, and it speaks for itself.
    """
    total = []
    for at in range(len(scores)):
        others = torch.cat([scores[:at], scores[at + 1 :]]) if len(scores) > 1 else scores
        chosen = pooled(others, own).argmax(-1, keepdim=True)
        total.append(scores[at].gather(-1, chosen).mean())
    return float(torch.stack(total).mean())


def choose(searched: Searched, own: float) -> Chosen:
    """The best point for each place, see `pooled`, and the best for all places."""
    by_place = pooled(searched.scores, own).argmax(-1)
    common = pooled(searched.scores, 0.0)[0].argmax()
    return Chosen(searched.points[by_place], searched.points[common])


@torch.enable_grad()
def place_gradients(bridge: Any, run: CleanRun, layer: int) -> Float[Tensor, "place d_model"]:
    """Where to push what a layer's attention writes at the end, for each place of the answer.

    The gradient of the log probability of the right answer, mean over the prompts of each place.
    """
    engine, prompts = engine_of(bridge), run.prompts
    added = torch.zeros_like(run.resid[layer]).requires_grad_()

    def listener(at: int, attention: Attention) -> Tensor | None:
        return added[None, :, None] if at == layer else None

    entering, end = run.resid[layer][None, :, None], prompts.positions["end"]
    final = engine.advance(run.past, layer, entering, end, listener=listener, check=False)
    said = engine.logits(final)[0].log_softmax(-1)
    said.gather(-1, prompts.right[:, None]).sum().backward()
    return means_by_place(added.grad, prompts.target, prompts.length)


def turned_axes(bridge: Any, runs: Sequence[CleanRun], svd: HeadSVD, head: Head, n: int) -> Axes:
    """The `n` directions of what a head can write along which places differ most.

    Principal directions of the place gradients, each counted from the mean over places, of lists
    of all lengths. They are chosen on lists and are no components: *exploratory*.
    """
    V = svd.V[head]
    moved = [place_gradients(bridge, run, head[0]) for run in runs]
    rows = torch.cat([(each - each.mean(0)) @ V / len(each) ** 0.5 for each in moved])
    if not 1 <= n <= min(rows.shape):
        raise CompanionError(f"{n} directions: give 1 to {min(rows.shape)}")
    directions = torch.linalg.svd(rows).Vh[:n] @ V.mT
    return Axes((head,) * n, directions.contiguous(), tuple(f"turned {i}" for i in range(n)))
