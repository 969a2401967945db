"""Sentences of chapter 08."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from th_utils.bootstrap import Interval
from th_utils.line import Line
from th_utils.prose.intervals import series
from th_utils.roles import Head, label
from th_utils.sightings import PROPERTIES, Sighting, array

_SAID = {
    "repetition": "the head looks at a token said before at",
    "first": "the head looks at the first token at",
    "enumeration": "enumerations hold",
}


def component(line: Line, mover: Head) -> str:
    """Which component is followed, which way its axis points, and which head reads it."""
    return (
        f"On this edition it is component {line.component} of head {label(line.head)}, the "
        f"strongest inhibition head before the main mover {label(mover)}. It is chosen on the half "
        "*find* of the task, and its axis points as in {doc}`04_line`: there ABBA prompts have the "
        "larger mean."
    )


def texts(sightings: Sequence[Sighting], repeated: Sequence[Float[np.ndarray, "text pos"]]) -> str:
    """How much text there is, and how repetitive it is."""
    parts = []
    for sighting, again in zip(sightings, repeated, strict=True):
        n, length = sighting.text.tokens.shape
        per_text = again.mean(axis=1)
        parts.append(
            f"{sighting.name}: {n} texts of {length} tokens; {again.mean():.1%} of the tokens end "
            "a run of four that stood before in the same text, "
            f"{per_text.max():.0%} in the most repetitive one; "
            f"{sighting.properties['said again'].mean():.0%} are a token that had occurred before"
        )
    return "\n".join(f"- {part}" for part in parts)


def coordinates(activity: Float[np.ndarray, "text pos"], level: float) -> str:
    """How far from the origin the component gets in text, and in the task."""
    middle = float(np.median(activity))
    edge = float(np.quantile(activity, 0.99))
    return (
        f"On the median prompt of the task the coordinate is {level:.1f} away from the origin. In "
        f"text the median position is {middle:.1f} away, the most active hundredth begins at "
        f"{edge:.1f}, and the farthest position is at {activity.max():.1f}"
    )


def coordinates_message(
    activity: Float[np.ndarray, "text pos"], level: float, component: str
) -> str:
    """How much of the text is as far from the origin as the task's median prompt."""
    far, n = int((activity >= level).sum()), activity.size
    if far:
        return (
            f"At {far:,} of {n:,} positions of text ({far / n:.2%}) the coordinate along component "
            f"{component} is as far from zero as on the task's median prompt ({level:.1f}) or "
            "farther."
        )
    return (
        f"At none of {n:,} positions of text is the coordinate along component {component} as far "
        f"from zero as on the task's median prompt: at most {activity.max():.1f}, against "
        f"{level:.1f}."
    )


def _share(table: dict[str, list], kind: str, source: str, among: str) -> float:
    rows = zip(table["source"], table["property"], table["among"], strict=True)
    return table["share"][list(rows).index((source, PROPERTIES[kind], among))]


def where(table: dict[str, list], kind: str, source: str) -> str:
    """Share of positions with one property, among all and among the most active."""
    everywhere, tenth, top = (
        f"{_share(table, kind, source, among):.0%}" for among in ("all", "tenth", "hundredth")
    )
    return (
        f"In text {source}, {_SAID[kind]} {everywhere} of all positions, {tenth} of the most "
        f"active tenth and {top} of the most active hundredth"
    )


def where_message(table: dict[str, list], sources: Sequence[str]) -> str:
    """How often the head looks at a repetition where the component is most active, and overall."""
    parts = []
    for source in sources:
        top, everywhere = (
            f"{_share(table, 'repetition', source, among):.0%}" for among in ("hundredth", "all")
        )
        of = ("", "") if parts else (" of the most active hundredth of positions", " of all")
        parts.append(f"{top}{of[0]} against {everywhere}{of[1]} in text {source}")
    return f"The inhibition head looks at a token said before at {series(parts)}."


def repetition(table: dict[str, list], sources: Sequence[str]) -> str:
    """Where the component is active: what the head looks at, by source of text."""
    first = [where(table, "repetition", source) for source in sources]
    sink = where(table, "first", sources[0])
    return ". ".join([*first, sink])


def lists(table: dict[str, list], lifts: dict[str, Interval], source: str) -> str:
    """Whether the component is active in enumerations, by both rules."""
    strict = lifts["strict"]
    return (
        f"{where(table, 'enumeration', source)}. By the stricter rule the most active hundredth "
        f"has {strict.value:.1f} times the share of all positions (95% interval "
        f"{strict.low:.1f} to {strict.high:.1f})."
    )


def kinds(table: dict[str, list]) -> str:
    """Share of active positions in every kind of text; the first row is a total."""
    rows = range(1, len(table["kind"]))
    shares = ", ".join(f"{table['kind'][i]} {table['active'][i]:.1%}" for i in rows)
    few = min(table["texts"][i] for i in rows)
    return f"Share of active positions by kind of text: {shares} ({few} texts or more of each kind)"


def kinds_message(table: dict[str, list]) -> str:
    """In which kind of text the component is active least and most often."""
    active, n = table["active"], len(table["kind"])
    least, most = ([i for i in range(1, n) if active[i] == end(active[1:])] for end in (min, max))
    if least == most:
        return f"The component is active at {active[1]:.1%} of positions in every kind of text."
    ends = [f"{active[at[0]]:.1%} ({_kinds_of(table, at)})" for at in (least, most)]
    text = f"By kind of text, the component is active at {ends[0]} to {ends[1]} of positions"
    if min(table["active high"][i] for i in least) == 0:  # a bootstrap of nothing seen is [0, 0]
        return f"{text}."
    apart = max(table["active high"][i] for i in least) < min(table["active low"][i] for i in most)
    return (
        f"{text}; the 95% intervals of least and most {'do not overlap' if apart else 'overlap'}."
    )


def _kinds_of(table: dict[str, list], at: list[int]) -> str:
    return series([table["kind"][i] for i in at]) if len(at) <= 3 else f"{len(at)} kinds"


def concentration(sighting: Sighting) -> str:
    """How many positions the most active hundredth is, and how they spread over texts."""
    per_text = sighting.most_active.sum(axis=1)
    return (
        f"The most active hundredth is {per_text.sum()} positions in {(per_text > 0).sum()} of "
        f"{len(per_text)} texts, {per_text.max()} of them in one"
    )


def beside(others: dict[str, Interval]) -> str:
    """The same statistic in other texts than those that a claim is about."""
    return " ".join(
        f"The same in text {name}: {found.value:.2f} (95% interval {found.low:.2f} to "
        f"{found.high:.2f})."
        for name, found in others.items()
    )


def rare(sighting: Sighting, level: float) -> str | None:
    """How little a share of zero says; None where the share is not zero.

    When none of n openings leads to something, at most 1 - 0.05^(1/n) of all openings do, at 95%.
    """
    reached = sighting.units(sighting.activity >= level)
    if reached.any():
        return None
    n = len(reached)
    return (
        f"None of {reached.size:,} positions is so far from the origin, and resampling zeros gives "
        f"no width. With none in {n} independent texts, up to {1 - 0.05 ** (1 / n):.0%} of such "
        "texts may still hold one (exact binomial, 95%)."
    )


def removal(table: dict[str, list]) -> str:
    """What the removal does where the component is most active, and where it is least."""
    top, random = (
        [table[f"{what} rise{end}"][-1] for end in ("", " low", " high")]
        for what in ("component", "random")
    )
    return (
        "At the most active hundredth of the positions the mover's attention to what the head "
        f"looks at changes by {top[0]:+.3f} on average when the component leaves its query (95% "
        f"interval {top[1]:+.3f} to {top[2]:+.3f}), and by {random[0]:+.3f} when equally long "
        f"random vectors do ({random[1]:+.3f} to {random[2]:+.3f}); in the less active half of the "
        f"positions the component changes it by {table['component rise'][0]:+.4f}"
    )


def removal_message(table: dict[str, list]) -> str:
    """What the removal does to the mover's attention at the most active positions."""
    value, low, high = (table[f"component rise{end}"][-1] for end in ("", " low", " high"))
    change = f"changes by {value:+.3f}"
    if low > 0 or high < 0:
        change = f"{'rises' if low > 0 else 'falls'} by {abs(value):.3f}"
    return (
        "At the most active hundredth of positions, the main mover's attention to what the "
        f"inhibition head looks at {change} (95% interval {low:+.3f} to {high:+.3f}) without the "
        f"component, and changes by {table['random rise'][-1]:+z.3f} without random vectors."
    )


def readings(
    sighting: Sighting,
    mentions: Interval,
    task: tuple[float, float],
) -> str:
    """The same count with attention to every mention of the token, and both in the task.

    Args:
        sighting: of the texts.
        mentions: share of the most active positions at which the attention to all mentions of the
            token rises.
        task: share of the task's prompts at which the attention rises, to the position looked at
            and to all mentions of its token.
    """
    top = sighting.most_active
    before = array(sighting.seen.reader)[top].mean()
    again = top & sighting.properties["repetition"]
    split = ""
    if again.any():
        one, every = (
            (array(rise)[again] > 0).mean()
            for rise in (sighting.seen.rise, sighting.seen.rise_mentions)
        )
        split = (
            f" At the {again.sum()} of them where the head looks at a repetition it rises at "
            f"{one:.0%} counted over the one position, at {every:.0%} over all mentions."
        )
    return (
        "*Exploratory, after the claim was fixed.* The statistic follows the one position that the "
        "head looks at most. In the task itself the inhibition heads look at the second mention of "
        "a name, and what counts is how much the mover looks at the first: there the attention to "
        "the position looked at rises on "
        f"{task[0]:.0%} of the prompts, and to all mentions of the name on {task[1]:.0%}. In text, "
        "counted over all mentions of the token looked at, it rises at "
        f"{mentions.value:.0%} of the most active positions (95% interval {mentions.low:.0%} to "
        f"{mentions.high:.0%}).{split} The mover gives the one position {before:.2f} of its "
        "attention on average with the component in place."
    )


def examples(table: dict[str, list], common: tuple[list, list]) -> str:
    """What the most active positions look like, counted."""
    here, there = (
        ", ".join(f"{quoted(token)} ({count})" for token, count in listed) for listed in common
    )
    rises = dict(zip(table["example"], table["rise"], strict=True)).values()
    return (
        f"Shown: the farthest position of {len(rises)} texts, each among the most active "
        f"hundredth. At {sum(rise > 0 for rise in rises)} of these {len(rises)} positions the "
        "mover looks more at the token looked at when the component leaves its query. Among all of "
        f"the most active hundredth, the commonest tokens are {here}; the head looks from there "
        f"most often at {there}"
    )


def examples_message(table: dict[str, list]) -> str:
    """At how many of the positions shown the removal turns the mover to what is looked at."""
    rises = dict(zip(table["example"], table["rise"], strict=True)).values()
    return (
        f"At {sum(rise > 0 for rise in rises)} of the {len(rises)} positions with a solid frame, "
        "removing the component makes the mover look more at the token that the inhibition head "
        "looks at."
    )


def examples_alt(table: dict[str, list]) -> str:
    """What the examples show, for who cannot see them."""
    parts = []
    for example in dict.fromkeys(table["example"]):
        at = [i for i, e in enumerate(table["example"]) if e == example]
        marked = {table["mark"][i]: i for i in at}
        looked = marked.get("looked", marked["active"])
        parts.append(
            f"at {quoted(table['text'][marked['active']], '')} it is "
            f"{table['coordinate'][marked['active']]:+.1f} and the head looks at "
            f"{quoted(table['text'][looked], '')}"
        )
    return "Texts with tokens coloured by the component's coordinate: " + "; ".join(parts) + "."


def quoted(token: str, mark: str = "`") -> str:
    """A token in a sentence.

    >>> quoted(" fox"), quoted("\\n"), quoted(" ")
    ('`fox`', 'a line end', 'a space')
    """
    bare = token.strip()
    if not bare:
        return "a line end" if "\n" in token else "a space"
    if mark and "`" in bare:
        return f"`` {bare} ``"
    return f"{mark}{bare}{mark}"
