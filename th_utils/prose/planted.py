"""Sentences of chapter 11."""

from __future__ import annotations

from typing import Any

import numpy as np

from th_utils.bootstrap import Interval
from th_utils.composition import KINDS
from th_utils.prose.intervals import series, span
from th_utils.recovery import half_found
from th_utils.search import DETECTORS

NAMES = {
    "whole": "whole matrices",
    "component": "single components",
    "sums": "sums of components",
    "aligned": "aligned components",
}
WHAT = {
    "whole": "composition score of whole matrices",
    "whole-z": "the same, standardised per reader",
    "component": "best component score; found by its chance, precision by itself",
    "component-z": "the same, standardised per reader",
    "component-chance": "how improbable the best component score is",
    "ceiling": "best component score over the highest the reader allows",
    "weighted": "best component score, weighted by its share of the writer",
    "sums": "how improbable the best one, two or three components are",
    "aligned": "best overlap of a writer's and a reader's component",
    "path": "the same, weighted by the shares of both",
}
CURVES = ("whole", "component", "aligned")  # those that are drawn against strength
_KIND_NAMES = {"Q": "queries", "K": "keys", "V": "values"}


def row(table: dict[str, list], **wanted: Any) -> dict[str, Any]:
    """The first row of a table with these values; numbers agree when they are close."""
    for values in zip(*table.values(), strict=True):
        found = dict(zip(table, values, strict=True))
        if all(
            np.isclose(found[name], value) if isinstance(value, float) else found[name] == value
            for name, value in wanted.items()
        ):
            return found
    raise KeyError(f"no row with {wanted}")


def level(strength: float) -> str:
    """A strength as people say it.

    >>> level(0.0625), level(2**0.5), level(4.0)
    ('1/16', '1.4', '4')
    """
    inverse = 1 / strength
    return f"1/{inverse:.0f}" if inverse > 1 and inverse.is_integer() else f"{strength:.2g}"


def matrices(table: dict[str, list]) -> str:
    """How many of the planted pairs of one model are found, and where they rank."""
    planted = np.array(table["planted"])
    parts = []
    for name in ("whole", "component"):
        score = np.array(table[name])
        places = [1 + int((score > s).sum()) for s in score[planted]]
        raised = int((planted & np.array(table[f"{name}_alarm"])).sum())
        parts.append(
            f"by {NAMES[name]} {raised} of {planted.sum()} raise an alarm, and the lowest of them "
            f"is number {max(places)} of {len(score)}"
        )
    text = "; ".join(parts)
    return text[0].upper() + text[1:]


def matrices_message(table: dict[str, list]) -> str:
    """How many of the planted channels of one model each of the two searches finds."""
    found = {
        name: sum(p and a for p, a in zip(table["planted"], table[f"{name}_alarm"], strict=True))
        for name in ("whole", "component")
    }
    return (
        f"Of {sum(table['planted'])} channels planted among the {len(table['planted']):,} pairs of "
        f"heads of one random model, the search finds {found['whole']} by {NAMES['whole']} and "
        f"{found['component']} by {NAMES['component']}."
    )


def recovery(table: dict[str, list]) -> str:
    """From which strength half of the channels are found, detector by detector."""
    halves = {name: half_found(table, name) for name in CURVES}
    text = "; ".join(
        _bounds(table, name)
        if half is None
        else f"{NAMES[name]} find half of the channels from strength {half:.2g} on"
        for name, half in halves.items()
    )
    return text[0].upper() + text[1:]


def recovery_message(table: dict[str, list]) -> str:
    """The same in one shorter sentence."""
    halves = {name: half_found(table, name) for name in CURVES}
    parts = [
        f"by {NAMES[name]} from strength {half:.2g} on"
        for name, half in halves.items()
        if half is not None
    ]
    said = [f"half of the planted channels are found {series(parts)}"] if parts else []
    text = "; ".join(said + [_bounds(table, name) for name in CURVES if halves[name] is None])
    return f"{text[0].upper()}{text[1:]}."


def _bounds(table: dict[str, list], name: str) -> str:
    """What a detector finds whose curve does not rise through one half."""
    first, last = (level(end(table["strength"])) for end in (min, max))
    shares = [r for r, d in zip(table["recall"], table["detector"], strict=True) if d == name]
    if max(shares) < 0.5:
        return f"{NAMES[name]} find at most {max(shares):.0%} at any strength up to {last}"
    return f"{NAMES[name]} find at least {min(shares):.0%} at every strength from {first} to {last}"


def kinds(table: dict[str, list], strength: float) -> str:
    """What single components find of each kind at one strength, and how right their alarms are."""
    found = row(table, detector="component", strength=strength)
    first, *rest = (f"{found[f'recall_{k}']:.0%} of {{}} into {_KIND_NAMES[k]}" for k in KINDS)
    each = ", ".join([first.format("the channels"), *(part.format("those") for part in rest)])
    alarms = [
        right
        for right, name in zip(table["alarms_right"], table["detector"], strict=True)
        if name in NAMES and right is not None
    ]
    return (
        f"At strength {level(strength)} single components find {each} "
        f"({found['channels'] // len(KINDS)} of each). Over all strengths and detectors with a "
        f"calculated threshold, at least {min(alarms):.0%} of the alarms are right"
    )


def detectors(table: dict[str, list], strengths: tuple[float, float]) -> str:
    """All detectors at two strengths, as a table."""
    low, high = map(level, strengths)
    lines = [
        f"| detector | what it is | found, {low} | found, {high} | precision, {low} | "
        f"precision, {high} | alike, {low} | alike, {high} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in DETECTORS:
        found = [row(table, detector=name, strength=s) for s in strengths]
        columns = ("recall", "ap", "recall_learned")
        numbers = [f"{f[column]:.2f}" for column in columns for f in found]
        lines.append(f"| {name} | {WHAT[name]} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def alike(
    table: dict[str, list], strength: float, gains: list[tuple[str, str, Interval, Interval]]
) -> str:
    """What finds more than what at calculated thresholds, and what at equally strict learned ones.

    `gains` names two detectors and gives the difference at calculated and at learned thresholds.
    """
    names = list(dict.fromkeys(name for pair in gains for name in pair[:2]))
    found = {name: row(table, detector=name, strength=strength) for name in names}
    shares = ", ".join(
        f"{NAMES[name]} {at['recall_learned']:.0%} (at calculated ones {at['recall']:.0%})"
        for name, at in found.items()
    )
    changes = "; ".join(
        f"{NAMES[name]} less {NAMES[than]} {_points(learned)}, at calculated thresholds "
        f"{_points(calculated)}, so {_turn(calculated, learned)}"
        for name, than, calculated, learned in gains
    )
    return (
        f"At strength {level(strength)}, at equally strict thresholds, the channels found are: "
        f"{shares}. In points, with 95% intervals: {changes}"
    )


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.0f} ({100 * gain.low:+.0f} to {100 * gain.high:+.0f})"


def _turn(before: Interval, after: Interval) -> str:
    """What becomes of an order of two detectors; an interval with 0 in it decides nothing."""
    signs = [(i.low > 0) - (i.high < 0) for i in (before, after)]
    if not signs[1]:
        return "neither is shown to find more" + (" any longer" if signs[0] else "")
    if signs[0] == -signs[1]:
        return "the order turns round"
    return "the order stays" if signs[0] else "now one is shown to find more"


def kept(strengths: list[float], found: list[tuple[float, float]]) -> str:
    """How much of a planted direction one component holds, and the term's share of the reader."""
    parts = [
        f"{held:.2f} at strength {level(strength)} (where the planted term is {share:.2%} of the "
        "reader's squared norm)"
        for strength, (held, share) in zip(strengths, found, strict=True)
    ]
    return "The median is " + ", ".join(parts)


def conditions(table: dict[str, list], strength: float) -> str:
    """For each detector, the conditions under which it finds least and most at one strength."""
    parts = []
    for name in NAMES:
        shares = _by_condition(table, name, strength)
        least, most = min(shares.values()), max(shares.values())
        if least == most:
            parts.append(f"{NAMES[name]} find {least:.0%} everywhere")
            continue
        where = [c for c, r in shares.items() if r == least]
        several = len(where) > 3
        said = f"{len(where)} of {len(shares)} conditions" if several else _list(where)
        parts.append(f"{NAMES[name]} find between {least:.0%} ({said}) and {most:.0%}")
    return f"At strength {level(strength)} " + "; ".join(parts)


def conditions_message(table: dict[str, list], strength: float) -> str:
    """How much each detector finds at one strength, over all conditions."""
    found = {name: _by_condition(table, name, strength) for name in NAMES}
    parts: list[str] = []
    for name, shares in found.items():
        ends = span(min(shares.values()), max(shares.values()), ".0%")
        find, of = ("", "") if parts else (" find", " of the planted channels")
        parts.append(f"{NAMES[name]}{find} {ends}{of}")
    return f"At strength {level(strength)}, depending on the condition, {series(parts)}."


def _by_condition(table: dict[str, list], name: str, strength: float) -> dict[str, float | int]:
    """Share of the channels that a detector finds at one strength, condition by condition."""
    columns = (table[n] for n in ("condition", "recall", "strength", "detector"))
    return {
        condition: recall
        for condition, recall, s, detector in zip(*columns, strict=True)
        if detector == name and np.isclose(s, strength)
    }


def difference(name: str, than: str, gain: Interval) -> str:
    """How much more one detector finds than another."""
    return (
        f"{NAMES[name]} find {100 * gain.value:.0f} points more than {NAMES[than]} (95% interval "
        f"{100 * gain.low:.0f} to {100 * gain.high:.0f})"
    )


def false_alarms(rates: dict[str, Interval], rate: float, models: int) -> str:
    """How many models without channels raise an alarm, by detector."""
    said = ", ".join(
        f"{NAMES.get(name, name)} {r.value:.1%} ({r.low:.1%} to {r.high:.1%})"
        for name, r in rates.items()
    )
    return (
        f"Of {models} models without any channel, at a stated rate of {rate:.0%}, with exact 95% "
        f"intervals: {said}"
    )


def false_alarms_message(rates: dict[str, Interval], rate: float, models: int) -> str:
    """How many models raise a false alarm, by detector, and whether that is more than allowed."""
    values = [r.value for r in rates.values()]
    against = [NAMES.get(name, name) for name, r in rates.items() if r.low > rate]
    above = f"for {series(against)} the 95% interval lies" if against else "no 95% interval lies"
    return (
        f"Of {models:,} random models without channels, {span(min(values), max(values), '.1%')}, "
        f"by detector, raise a false alarm where at most {rate:.0%} should; {above} above that."
    )


def excluded(rates: dict[str, Interval], rate: float, models: int) -> str:
    """Whether anything speaks against the stated rate, and what so many models exclude."""
    against = [NAMES.get(name, name) for name, r in rates.items() if r.low > rate]
    said = (
        f"Against the stated rate of {rate:.0%} speak {_list(against)}"
        if against
        else f"Nothing here speaks against the stated rate of {rate:.0%}"
    )
    above = ", ".join(f"{r.high:.1%} ({NAMES.get(name, name)})" for name, r in rates.items())
    return f"{said}. What {models} models exclude are rates above {above}"


def _list(names: list[str]) -> str:
    quoted = [f"“{name}”" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]
