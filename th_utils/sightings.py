"""Where a component was seen active in texts, as the tables of chapter 08."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from th_utils import wild
from th_utils.bootstrap import Interval, mean_interval
from th_utils.enumerations import marks
from th_utils.errors import CompanionError
from th_utils.tasks.text import Text
from th_utils.wild import Seen

PROPERTIES = {
    "repetition": "looks at a token\nsaid before",
    "said again": "is itself a token\nsaid before",
    "first": "looks at the\nfirst token",
    "enumeration": "is in an\nenumeration",
    "strict": "is in one by\nthe strict rule",
}
AMONG = {"all": 1.0, "tenth": 0.1, "hundredth": wild.ACTIVE}
# Bands of activity: the most active share of all positions, without this share of more active ones.
BANDS = {
    "lower half": (1.0, 0.5),
    "next 40%": (0.5, 0.1),
    "next 9%": (0.1, wild.ACTIVE),
    "top 1%": (wild.ACTIVE, 0.0),
}
BEFORE, AFTER = 44, 6  # tokens shown around an active position


@dataclass(frozen=True)
class Sighting:
    """One collection of texts and what was seen in it.

    Arrays leave out the first position of each text, which can look at nothing but itself. All
    intervals are over openings, with the texts that begin alike drawn together.
    """

    name: str
    text: Text
    seen: Seen

    @cached_property
    def activity(self) -> Float[np.ndarray, "text pos"]:
        """Distance of the coordinate from the origin."""
        return np.abs(array(self.seen.coordinate))

    @cached_property
    def properties(self) -> dict[str, Bool[np.ndarray, "text pos"]]:
        """Which positions have which of `PROPERTIES`."""
        tokens, looked = self.text.tokens, self.seen.looked
        listed = {
            name: np.stack([marks(row, strict=strict) for row in self.text.pieces])[:, 1:]
            for name, strict in (("enumeration", False), ("strict", True))
        }
        return {
            "repetition": array(wild.repetition(tokens, looked)),
            "said again": array(wild.said_before(tokens)),
            "first": array(looked == 0),
        } | listed

    @property
    def most_active(self) -> Bool[np.ndarray, "text pos"]:
        return wild.most_active(self.activity)

    def units(
        self, x: Shaped[np.ndarray, "text pos"], texts: Sequence[int] | None = None
    ) -> Shaped[np.ndarray, "unit unit_pos"]:
        """The same positions with texts of one opening in one row: they are no independent draws.

        Args:
            x: a value per position.
            texts: which texts; all of them when None.

        Raises:
            CompanionError: openings have different numbers of texts.
        """
        rows: dict[tuple, list[int]] = {}
        for i in range(len(self.text)) if texts is None else texts:
            begun = self.text.tokens[i, : int(self.text.opening[i])].tolist()
            rows.setdefault(tuple(begun) if begun else ("text", i), []).append(i)
        if len(set(map(len, rows.values()))) > 1:
            raise CompanionError(
                f"{len(self.text)} texts do not have every opening equally often: ask for as many "
                "as there are openings, or a multiple of it"
            )
        return x[np.array(list(rows.values()))].reshape(len(rows), -1)

    def share(
        self,
        flag: Shaped[np.ndarray, "text pos"],
        *,
        seed: int,
        among: float = wild.ACTIVE,
        above: float = 0.0,
    ) -> Interval:
        """Share of the most active positions that are flagged, or the mean of numbers there.

        See `th_utils.wild.mean_among`.
        """
        activity = self.units(self.activity)
        return wild.mean_among(activity, self.units(flag), seed=seed, share=among, above=above)

    def lift(self, name: str, *, seed: int) -> Interval:
        """Of one property, see `th_utils.wild.lift`."""
        return wild.lift(self.units(self.activity), self.units(self.properties[name]), seed=seed)

    def rarity(self, level: float, *, seed: int) -> Interval:
        """Share of positions at least as far from the origin as `level`."""
        return mean_interval(self.units(self.activity >= level).mean(axis=1), seed=seed)


def array(x: Tensor) -> np.ndarray:
    """Without the first position; numbers in double precision."""
    x = x[..., 1:].cpu()
    return (x.double() if x.is_floating_point() else x).numpy()


def where_table(sightings: Sequence[Sighting], *, seed: int) -> dict[str, list]:
    """Share of positions with each property, among all and among the most active.

    Returns:
        Columns: source, property, among ("all", "tenth", "hundredth"), share, low, high.
    """
    rows = [
        (s.name, words, among, *s.share(s.properties[key], seed=seed, among=n))
        for s in sightings
        for key, words in PROPERTIES.items()
        for among, n in AMONG.items()
    ]
    return _columns(("source", "property", "among", "share", "low", "high"), rows)


def coordinates_table(
    sightings: Sequence[Sighting],
    task: dict[str, Float[np.ndarray, " prompt"]],
    *,
    bins: int = 60,
) -> dict[str, list]:
    """Histograms of the coordinate, in the task by order of names, and in text.

    Returns:
        Columns: panel ("task" or "text"), source, left, right (edges), share (of that source).
    """
    text = {s.name: array(s.seen.coordinate).ravel() for s in sightings}
    ends = np.concatenate([*task.values(), *text.values()])
    edges = np.linspace(ends.min(), ends.max(), bins + 1)
    rows = []
    for panel, sources in (("task", task), ("text", text)):
        for source, values in sources.items():
            counts, _ = np.histogram(values, bins=edges)
            rows += [
                (panel, source, float(left), float(right), float(n / len(values)))
                for left, right, n in zip(edges[:-1], edges[1:], counts, strict=True)
                if n
            ]
    return _columns(("panel", "source", "left", "right", "share"), rows)


def kinds_table(sightings: Sequence[Sighting], *, seed: int) -> dict[str, list]:
    """Share of active, of repeating and of enumerating positions, by kind of text.

    The first row is all of the first sighting, then come its kinds, then the others whole. Active
    means at least as far from the origin as the least active of the first sighting's most active
    positions.

    Returns:
        Columns: kind, texts, and for "active", "repetition" and "enumeration" the mean over
        positions and its interval over openings ("active", "active low", "active high", ...).
    """
    first, *others = sightings
    everything = f"all {first.name}"
    level = first.activity[first.most_active].min()
    of = first.text.kinds
    groups = [(everything, first, range(len(of)))]
    groups += [(k, first, [i for i, x in enumerate(of) if x == k]) for k in dict.fromkeys(of)]
    groups += [(other.name, other, range(len(other.text))) for other in others]
    rows = []
    for name, sighting, at in groups:
        row: list = [name, len(at)]
        for flag in (
            sighting.activity >= level,
            sighting.properties["repetition"],
            sighting.properties["enumeration"],
        ):
            row += mean_interval(sighting.units(flag, at).mean(axis=1), seed=seed)
        rows.append(row)
    flags = ("active", "repetition", "enumeration")
    return _columns(
        ("kind", "texts", *(f"{flag}{end}" for flag in flags for end in ("", " low", " high"))),
        rows,
    )


def removal_table(sighting: Sighting, *, seed: int) -> dict[str, list]:
    """What the removal does to the reader's attention, by how active the component is.

    For random vectors the mean over draws, position by position.

    Returns:
        Columns: band, positions, and for "component" and "random" the mean rise of the attention
        to what the head looks at and the share of positions where it rises, with intervals over
        openings, as `Sighting.share` takes them ("component rise", "component rise low", ...).
    """
    rise, random = array(sighting.seen.rise), array(sighting.seen.random)
    rows = []
    for band, (share, above) in BANDS.items():
        row: list = [band, int(wild.between(sighting.activity, share, above).sum())]
        for values in (rise, random.mean(axis=0), rise > 0, (random > 0).mean(axis=0)):
            row += sighting.share(values, seed=seed, among=share, above=above)
        rows.append(row)
    names = [
        f"{what} {name}{end}"
        for name in ("rise", "rising")
        for what in ("component", "random")
        for end in ("", " low", " high")
    ]
    return _columns(("band", "positions", *names), rows)


def examples_table(sighting: Sighting, n: int) -> dict[str, list]:
    """The farthest position of each text that has a most active one; `n` texts at most.

    Returns:
        Columns: example, title, rise (of the mover's attention to the token looked at, without
        the component), text (of the token), coordinate, mark ("active" for the position meant,
        "looked" for the one its head mostly looks at, else "").
    """
    best = sighting.activity.argmax(axis=1) + 1
    height = np.where(sighting.most_active.any(axis=1), sighting.activity.max(axis=1), -1)
    order = np.argsort(-height, kind="stable")[: min(n, (height >= 0).sum())]
    rows = []
    for example, i in enumerate(order.tolist()):
        at, pieces = int(best[i]), sighting.text.pieces[i]
        coordinate = sighting.seen.coordinate[i].tolist()
        looked = int(sighting.seen.looked[i, at])
        before, rise = (float(x[i, at]) for x in (sighting.seen.reader, sighting.seen.rise))
        title = (
            f"{sighting.text.kinds[i]}: coordinate {coordinate[at]:+.1f}; the mover's attention to "
            f"what is looked at: {before:.3f}, and without the component {rise:+.2g}"
        )
        stretch = range(max(0, at - BEFORE), min(len(pieces), at + AFTER + 1))
        far = range(max(0, looked - 4), min(looked + 5, stretch[0])) if looked < stretch[0] else ()
        for j in (*far, *([None] if far else []), *stretch):
            if j is None:
                rows.append((example, title, rise, " … ", 0.0, ""))
                continue
            mark = "active" if j == at else "looked" if j == looked else ""
            rows.append((example, title, rise, pieces[j], coordinate[j], mark))
    return _columns(("example", "title", "rise", "text", "coordinate", "mark"), rows)


def common_tokens(
    sighting: Sighting, n: int
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The most frequent tokens at the most active positions, and those looked at from there."""
    places = np.argwhere(sighting.most_active) + (0, 1)
    here, there = Counter(), Counter()
    for i, at in places.tolist():
        here[sighting.text.pieces[i][at]] += 1
        there[sighting.text.pieces[i][int(sighting.seen.looked[i, at])]] += 1
    return here.most_common(n), there.most_common(n)


def _columns(names: Sequence[str], rows: Sequence[Sequence]) -> dict[str, list]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def task_ends(seen: Seen, end: Int[Tensor, " prompt"]) -> dict[str, Float[np.ndarray, " prompt"]]:
    """What was seen at the end position of the task's prompts.

    Returns:
        "coordinate", "rise" and "rise_mentions", as in `Seen`.
    """
    at = end[:, None]
    names = ("coordinate", "rise", "rise_mentions")
    return {n: getattr(seen, n).gather(1, at)[:, 0].double().cpu().numpy() for n in names}


def median_distance(coordinate: Float[np.ndarray, " prompt"]) -> float:
    """How far from the origin the median prompt of a task is.

    >>> median_distance(np.array([-3.0, 1.0, 2.0]))
    2.0
    """
    return float(np.median(np.abs(coordinate)))
