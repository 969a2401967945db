"""Sentences of the front page's picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from th_utils.results import Results

Estimate = tuple[float, float, float]  # mean, and the ends of its interval


class Finding(NamedTuple):
    """What the picture shows, of the inhibition head with the strongest component.

    `scores` are from weights, `falls` from runs; `intact`, `without` and `control` are the mover's
    inhibition score with nothing removed, without the `n_removed` leading components of all
    inhibition heads that were taken apart, and without as many random others of these heads.
    """

    head: str
    mover: str
    component: int
    scores: Float[np.ndarray, "component"]
    falls: Float[np.ndarray, "component"]
    n_removed: int
    intact: Estimate
    without: Estimate
    control: Estimate


def leading(panels: Results, removal: Results) -> Finding:
    """Take from the tables of chapter 03 what belongs to the head with the strongest component."""
    c, r = panels.columns, removal.columns
    strongest = int(np.argmax(np.where(c["picked"], c["inhibition"], -np.inf)))
    head = c["head"][strongest]
    at = [i for i, one in enumerate(c["head"]) if one == head]
    control = r["control"].index(True)  # stands below what it is a control of

    def estimate(i: int) -> Estimate:
        return tuple(float(r[f"inhibition {end}"][i]) for end in ("mean", "low", "high"))

    return Finding(
        head,
        panels.meta["mover"],
        c["component"][strongest],
        np.array([c["composition"][i] for i in at], dtype=float),
        np.array([c["inhibition"][i] for i in at], dtype=float),
        sum(map(bool, c["picked"])),
        estimate(0),
        estimate(control - 1),
        estimate(control),
    )


def caption(found: Finding, edition: str) -> str:
    """The message first; then what is seen, panel by panel."""
    best = int(found.scores.argmax())
    return (
        f"**{message(found)}** 1: composition score of each of the {len(found.scores)} components "
        f"of inhibition head {found.head} with the query of mover {found.mover}; number {best} has "
        f"{found.scores[best]:.2f}, the next {np.delete(found.scores, best).max():.2f}. 2: how "
        "much the mover's preference for the right name falls when one component is removed from "
        f"that query. 3: without the {found.n_removed} leading components of the strongest "
        "inhibition heads, and everything after recomputed, the preference is "
        f"{found.without[0]:.2f} instead of {found.intact[0]:.2f}; without as many random others "
        f"of these heads it is {found.control[0]:.2f}. Bars are 95% intervals over prompts. "
        f"Edition `{edition}`; drawn from the numbers of {{numref}}`fig-03-panels` and "
        "{numref}`fig-03-removal`, which are the figures to cite."
    )


def message(found: Finding) -> str:
    """Whether the component that the weights single out is the one that does most."""
    best, most = int(found.scores.argmax()), found.component
    falls, start = found.falls, f"The weights single out component {found.head}.{best}"
    if best == most:
        return (
            f"{start}, and without it the mover's preference for the right name falls by "
            f"{falls[most]:.2f}; without any other of the head's {len(falls)} components, by at "
            f"most {np.delete(falls, most).max():.2f}."
        )
    return (
        f"{start}, but the mover's preference for the right name falls most without another: by "
        f"{falls[most]:.2f} without component {found.head}.{most}, by {falls[best]:.2f} without "
        f"component {found.head}.{best}."
    )


def alt(found: Finding) -> str:
    """What the picture shows, for whoever does not see it."""
    best = int(found.scores.argmax())
    same = "the same one" if best == found.component else f"another, number {found.component},"
    return (
        f"Among {len(found.scores)} components of one head, number {best} has the highest "
        f"composition score, and {same} has the largest effect on the mover; with "
        f"{found.n_removed} leading components removed the mover's preference is "
        f"{found.without[0]:.2f} instead of {found.intact[0]:.2f}."
    )
