"""Sentences of chapter 04."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from th_utils.bootstrap import Interval
from th_utils.line import Line
from th_utils.prose.channels import rows
from th_utils.prose.intervals import bracketed, ranged
from th_utils.roles import Head, label

WAYS = {"add": "added to the residual stream", "only": "put in place of the head's output"}


def chosen(line: Line, mover: Head, split: str) -> str:
    """Which component it is, and where the two orders lie on the half it was chosen on."""
    between = "on either side of" if line.abba > 0 > line.baba else "on the same side of"
    return (
        f"The strongest inhibition head is {label(line.head)}; on the half `{split}`, component "
        f"{line.component} takes most from the inhibition score of the main mover {label(mover)}. "
        f"There the mean coordinate is {line.abba:+.1f} for ABBA and {line.baba:+.1f} for BABA "
        f"prompts, {between} the origin; the sign of the axis is chosen so that ABBA is the larger."
    )


def apart(table: dict[str, list]) -> str:
    """How well the coordinate tells the orders apart, overall and in the worst template."""
    whole, *each = rows(table)
    worst, fewest = (min(each, key=lambda row: row[name]) for name in ("auc", "side"))
    lowest = (
        f"; the lowest of a template is {worst['auc']:.2f} (template {worst['template']}, "
        f"{worst['pairs']} pairs)"
        if worst["auc"] < 1
        else "; in each template alone it is 1.00"
        if whole["auc"] < 1
        else ": every ABBA prompt lies above every BABA prompt"
    )
    sides = (
        f"{whole['side']:.0%} of the prompts lie on their order's side of the origin, which was "
        f"not fitted, and {fewest['side']:.0%} in the template where fewest do (template "
        f"{fewest['template']})"
        if fewest["side"] < 1
        else "All prompts lie on their order's side of the origin, which was not fitted"
    )
    return (
        f"Over {whole['pairs']} held-out pairs of prompts in {len(each)} templates the area under "
        f"the curve is {_ranged(whole, 'auc', '.2f')}{lowest}. {sides}"
    )


def unseen(table: dict[str, list]) -> str:
    """What an interval cannot say where no prompt is an exception; nothing where some are."""
    whole, *_ = rows(table)
    if whole["side"] < 1:
        return ""
    share = 1 - 0.05 ** (1 / whole["pairs"])
    return (
        " Where there is no exception, resampling makes none: the interval has no width, but if "
        f"{share:.{0 if share >= 0.01 else 1}%} of all pairs were exceptions, one sample in twenty "
        "of this size would still have none."
    )


def sweep(table: dict[str, list], reach: float) -> str:
    """Attention and logits at both ends of the sweep, way by way."""
    parts = []
    for how, name in WAYS.items():
        first, second, logits = (sweep_ends(table, how, q) for q in ("first", "second", "logits"))
        parts.append(
            f"{name}, αv takes the main mover's attention to the first name from {first[0]:.2f} to "
            f"{first[1]:.2f} and that to the second from {second[0]:.2f} to {second[1]:.2f}, and "
            f"logit(first) − logit(second) from {logits[0]:+.1f} to {logits[1]:+.1f} nats"
        )
    return f"From α = −{reach:.1f} to α = +{reach:.1f}, means over both orders: {'; '.join(parts)}"


def ends(table: dict[str, list], reach: float) -> str:
    """The same as a table."""
    lines = [
        "| αv | attention to the first name | attention to the second name | "
        "logit(first) − logit(second), nats |",
        "| --- | --- | --- | --- |",
    ]
    for how, name in WAYS.items():
        cells = (
            f"{low:{form}} → {high:{form}}"
            for quantity, form in (("first", ".2f"), ("second", ".2f"), ("logits", "+.1f"))
            for low, high in [sweep_ends(table, how, quantity)]
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return (
        f"At the ends, α = −{reach:.1f} → α = +{reach:.1f}, means over both orders:\n\n"
        + "\n".join(lines)
    )


def answer(change: Interval, orders: float, share: Interval) -> str:
    """How far the logits move, beside the distance of the two orders."""
    return (
        f"Prompts of the two orders lie {orders:.1f} nats apart in logit(first) − logit(second). "
        f"Moving a prompt from one end of the line to the other changes it by "
        f"{change.value:.1f} nats on average (95% interval {change.low:.1f} to {change.high:.1f}), "
        f"{share.value:.0%} of that distance."
    )


def random(table: dict[str, list], shares: dict[str, Interval]) -> str:
    """The random directions of both kinds beside the line."""
    found = rows(table)
    line = next(row for row in found if row["kind"] == "add")
    parts = []
    for kind, name in (
        ("head", "that the head could write"),
        ("residual", "of the whole residual stream"),
    ):
        means = [row for row in found if row["kind"] == kind]
        size = {q: [abs(row[f"{q} mean"]) for row in means] for q in ("attention", "logits")}
        parts.append(
            f"{len(means)} random directions {name} change the attention by "
            f"{_mean(size['attention']):.3f} on average ({shares[kind].value:.1%} of the line's "
            f"change) and {max(size['attention']):.3f} at most, the logits by "
            f"{_mean(size['logits']):.2f} and {max(size['logits']):.2f} nats"
        )
    return (
        f"The line, added, changes the attention by {line['attention mean']:.2f} and the logits by "
        f"{line['logits mean']:.1f} nats. Whatever the sign, {'; '.join(parts)}"
    )


def control_note(share: Interval) -> str:
    """The other kind of random direction, for the claim's note."""
    return (
        "Random directions that the head could write, resampled with the prompts; of the whole "
        f"residual stream: {ranged(share, '.3f')}."
    )


def turned(table: dict[str, list]) -> str:
    """A table of what turns and what does not, when prompts are moved against their order."""
    lines = [
        "| moved against its order | the mover's attention turns | the answer turns | "
        "logit difference left, nats |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['way']} | {_cell(row, 'attention', '.0%')} | {_cell(row, 'answer', '.0%')} | "
        f"{_cell(row, 'left', '+.1f')} |"
        for row in rows(table)
    ]
    return "\n".join(lines)


def not_turned(table: dict[str, list], way: str) -> str:
    """What of the behaviour one way of moving leaves as it was."""
    row = next(row for row in rows(table) if row["way"] == way)
    if row["answer value"] is None or row["attention value"] is None:
        return "The model prefers the right name in no prompt: nothing can be turned."
    return (
        f"Moved {way}, {1 - row['attention value']:.0%} of the prompts in which the right name was "
        f"preferred keep the mover's attention on it, and {1 - row['answer value']:.0%} keep their "
        "answer."
    )


def heads(table: dict[str, list], change: dict[str, list]) -> str:
    """The leading components of all inhibition heads, as a table."""
    lines = [
        "| component | mean coordinate, ABBA | BABA | area under the curve | on its side of the "
        "origin | change in attention | change in logits, nats |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    found = {row["component"]: row for row in rows(table)}
    for row in rows(change):
        of = found.get(row["component"])
        where = (
            f"{of['abba']:+.1f} | {of['baba']:+.1f} | "
            f"{_ranged(of, 'auc', '.2f', bracketed)} | {_ranged(of, 'side', '.0%', bracketed)}"
            if of
            else " |  |  | "
        )
        lines.append(
            f"| {row['component']} | {where} | {_cell(row, 'attention', '+.2f')} | "
            f"{_cell(row, 'logits', '+.1f')} |"
        )
    return "\n".join(lines)


def exchanges(table: dict[str, list], donors: Sequence[str]) -> str:
    """What moves when the end position is given more and more of another prompt, as a table."""
    found = {(row["given"], row["donor"]): row for row in rows(table)}
    heads = " | ".join(f"{donor}: attention | answer" for donor in donors)
    lines = [f"| given | {heads} |", "| --- |" + " --- |" * (2 * len(donors))]
    for given in dict.fromkeys(table["given"]):
        cells = [
            _cell(found[given, donor], name, ".0%")
            for donor in donors
            for name in ("attention", "answer")
        ]
        lines.append(f"| {given} | {' | '.join(cells)} |")
    return "\n".join(lines)


def held_elsewhere(table: dict[str, list], donor: str) -> str:
    """How much of the answer the end position holds, and how much of it the line moves."""
    first, *_, everything = (row for row in rows(table) if row["donor"] == donor)
    rest = (
        " What does not move is decided by what later blocks read at other positions."
        if everything["answer high"] < 1
        else ""
    )
    return (
        f"With all that the end position has been written by then from the {donor}, "
        f"{_cell(everything, 'answer', '.0%')} of the logit difference moves; with the leading "
        f"component's coordinate alone {_cell(first, 'answer', '.0%')}.{rest}"
    )


def ranges(table: dict[str, list]) -> str:
    """Line and random directions over several ranges, as a table."""
    lines = [
        "| end of the sweep, mean coordinates | the line, everything recomputed | random | "
        "the line, mover's query alone | random |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['factor']:g} | {_cell(row, 'full', '.2f')} | {row['full random']:.3f} | "
        f"{_cell(row, 'query', '.2f')} | {row['query random']:.3f} |"
        for row in rows(table)
    ]
    return "\n".join(lines)


def components(table: dict[str, list], share: float) -> str:
    """What the head's components could do, and what they are used for; how long the vectors are."""
    found = sorted(rows(table), key=lambda row: -row["change"])
    leading = next(row for row in found if row["leading"])
    others = [row for row in found if not row["leading"]]
    most = {name: max(row[name] for row in others) for name in ("change", "apart")}
    could, used = (leading[name] / most[name] for name in ("change", "apart"))
    apart = ""
    if max(could, used) > 1:
        names = (f"its use ({used:.1f} times the next)", f"what it could do ({could:.1f} times)")
        more, less = names if used > could else names[::-1]
        apart = f". What sets it apart is more {more} than {less}"
    return (
        f"The vector at the end of the sweep is {share:.2f} times as long as the residual stream "
        f"that it is added to. Of the head's {len(found)} components, each added over the same "
        f"range to the mover's query alone, the leading one is number "
        f"{1 + found.index(leading)}, with a change of {leading['change']:.2f} in attention; the "
        f"largest of another is {most['change']:.2f}. On the leading one the two orders lie "
        f"{leading['apart']:.1f} apart, on any other at most {most['apart']:.1f}{apart}"
    )


def sweep_ends(table: dict[str, list], how: str, quantity: str) -> tuple[float, float]:
    """Means over the orders at the first and at the last point."""
    of = [r for r in rows(table) if (r["how"], r["quantity"]) == (how, quantity)]
    alphas = [row["alpha"] for row in of]
    return tuple(
        _mean([row["mean"] for row in of if row["alpha"] == end])
        for end in (min(alphas), max(alphas))
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _ranged(
    row: dict[str, Any], name: str, form: str, say: Callable[[Interval, str], str] = ranged
) -> str:
    return say(Interval(*(row[key] for key in (name, f"{name}_low", f"{name}_high"))), form)


def _cell(row: dict[str, Any], name: str, form: str) -> str:
    if row[f"{name} value"] is None:
        return "—"
    return bracketed(Interval(*(row[f"{name} {end}"] for end in ("value", "low", "high"))), form)
