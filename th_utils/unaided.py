"""Repairs without an oracle: the point is chosen from what the clean run itself shows.

Steering by place is told where the answer stands, which is all that was to be found out. Here the
place is read off the clean run: off the movers' attention to the items, off the items' logits, or
off the inhibition coordinates. Each reading is first freed of what it says of every place anyhow,
by its mean over lists of the split ``find``. Or nothing is read at all: the deviation of the
coordinates from their mean is amplified, or all places get the same point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from th_utils.repair import Chosen, How, means_by_place
from th_utils.roles import Head
from th_utils.runs import CleanRun
from th_utils.steering import Axes, coordinates
from th_utils.tasks.lists import ListPrompts

FACTORS = (0.0, 3.0)  # of the deviation from the mean


def item_attention(run: CleanRun, heads: Sequence[Head]) -> Float[Tensor, "prompt item"]:
    """Attention from the end to each item's first mention, mean over heads."""
    rows = torch.stack([run.pattern["end"][layer, :, head] for layer, head in heads]).mean(0)
    return rows.gather(-1, run.prompts.items)


def closeness(
    points: Float[Tensor, "prompt axis"],
    known: Float[Tensor, "known axis"],
    target: Int[Tensor, " known"],
    length: int,
) -> Float[Tensor, "prompt place"]:
    """Minus the squared distance from the mean of each place, in units of the spread within.

    Args:
        points: coordinates to be placed.
        known: coordinates of prompts whose places are known.
        target: their places.
        length: number of places.
    """
    centres = means_by_place(known, target, length)
    spread = (known - centres[target]).pow(2).mean(0).clamp_min(1e-12)
    return -((points[:, None] - centres) ** 2 / spread).sum(-1)


def freed(
    reading: Float[Tensor, "prompt item"], known: Float[Tensor, "known item"]
) -> Float[Tensor, "prompt item"]:
    """A reading counted from its mean over known prompts, item by item."""
    return reading - known.mean(0)


def readings(bridge: Any, run: CleanRun, movers: Sequence[Head], axes: Axes) -> dict[str, Tensor]:
    """What a clean run shows, by name, before anything is learned from other lists."""
    return {
        "main mover's attention": item_attention(run, movers[:1]),
        "movers' attention": item_attention(run, movers),
        "items' logits": run.logits,
        "coordinates": coordinates(bridge, run, axes),
    }


def guesses(
    shown: dict[str, Tensor],
    known: dict[str, Tensor],
    target: Int[Tensor, " known"],
    length: int,
) -> dict[str, Int[Tensor, " prompt"]]:
    """The place that each reading points at.

    Args:
        shown: readings of the prompts in question.
        known: readings of prompts whose places are known.
        target: those places.
        length: number of places.
    """
    return {
        name: (
            closeness(reading, known[name], target, length)
            if name == "coordinates"
            else freed(reading, known[name])
        ).argmax(-1)
        for name, reading in shown.items()
    }


def guesses_left_out(
    shown: dict[str, Tensor], prompts: ListPrompts
) -> dict[str, Int[Tensor, " prompt"]]:
    """The same for the prompts that are learned from, each list by what the others teach.

    With a single list there are no others, and it teaches itself.
    """
    number = torch.arange(len(prompts), device=prompts.target.device) // prompts.length
    found: dict[str, list[Tensor]] = {name: [] for name in shown}
    for start in range(0, len(prompts), prompts.length):
        own = slice(start, start + prompts.length)
        others = number != number[start]
        others = others if bool(others.any()) else ~others
        inside, outside = ({n: x[at] for n, x in shown.items()} for at in (own, others))
        learned = guesses(inside, outside, prompts.target[others], prompts.length)
        for name, guess in learned.items():
            found[name].append(guess)
    return {name: torch.cat(parts) for name, parts in found.items()}


def rules(
    guessed: dict[str, Int[Tensor, " prompt"]],
    natural: Float[Tensor, "prompt axis"],
    mean: Float[Tensor, " axis"],
    points: Chosen,
    how: How,
) -> dict[str, Float[Tensor, "prompt axis"]]:
    """The points that each rule sets, by the rule's name.

    Args:
        guessed: places read off the clean run.
        natural: the coordinates of the clean run.
        mean: of the coordinates, over the lists that were searched.
        points: what the search found for each place.
        how: as in the search.
    """
    found = {f"place from {name}": points.by_place[at] for name, at in guessed.items()}
    found["one point for all places"] = points.common.expand_as(natural)
    found["nothing set"] = torch.full_like(natural, torch.nan)
    for factor in FACTORS:
        moved = mean + factor * (natural - mean)
        name = f"deviation times {factor:g}"
        found[name] = moved if how == "replace" else moved - natural
    return found
