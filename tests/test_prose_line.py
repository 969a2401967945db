"""Sentences of chapter 04 say what their tables say: other numbers, other words."""

from __future__ import annotations

import pytest
import torch
from tables import changed

from th_utils.bootstrap import Interval
from th_utils.line import Line
from th_utils.prose import line as words
from th_utils.prose import messages_04
from th_utils.steering import Axes


def a_line(abba: float = 14.2, baba: float = -9.1) -> Line:
    axes = Axes(((7, 3),), torch.eye(1, 4), ("7.3.5",))
    return Line((7, 3), 5, axes, abba, baba)


@pytest.mark.parametrize(
    "line, said",
    [
        (a_line(), "+14.2 for ABBA and -9.1 for BABA prompts, on either side of the origin"),
        (a_line(baba=3.3), "+3.3 for BABA prompts, on the same side of the origin"),
        (a_line(-1.0, -4.0), "-1.0 for ABBA and -4.0 for BABA prompts, on the same side"),
    ],
)
def test_chosen(line, said):
    text = words.chosen(line, (9, 6), "find")
    assert said in text
    assert "inhibition head is 7.3; on the half `find`, component 5" in text
    assert "main mover 9.6" in text


SUMMARY = {
    "template": [0, 2, 4],
    "pairs": [32, 17, 15],
    "auc": [0.97, 0.99, 0.91],
    "auc_low": [0.93, 0.9, 0.8],
    "auc_high": [0.98, 1.0, 0.95],
    "side": [0.88, 0.7, 0.94],
    "side_low": [0.8, 0.6, 0.8],
    "side_high": [0.92, 0.9, 0.99],
}


@pytest.mark.parametrize(
    "column, row, value, said",
    [
        ("pairs", 0, 77, "Over 77 held-out pairs"),
        ("auc", 0, 0.66, "curve is 0.66 (95% interval 0.93 to 0.98)"),
        ("auc_low", 0, 0.11, "0.97 (95% interval 0.11 to 0.98)"),
        ("auc", 1, 0.85, "the lowest of a template is 0.85 (template 2, 17 pairs)"),
        ("auc", 2, 0.22, "the lowest of a template is 0.22 (template 4, 15 pairs)"),
        ("side", 0, 0.51, "51% of the prompts lie on their order's side"),
        ("side", 2, 0.13, "not fitted, and 13% in the template where fewest do (template 4)"),
    ],
)
def test_apart(column, row, value, said):
    assert said not in words.apart(SUMMARY)
    assert said in words.apart(changed(SUMMARY, column, row, value))


def test_apart_where_nothing_overlaps():
    table = SUMMARY | {"auc": [1.0] * 3, "side": [1.0] * 3}
    text = words.apart(table)
    assert text.startswith("Over 32 held-out pairs of prompts in 2 templates the area")
    assert "0.98): every ABBA prompt lies above every BABA prompt. All prompts lie on" in text
    assert text.endswith("which was not fitted") and "fewest" not in text
    text = words.apart(changed(table, "auc", 0, 0.97))
    assert "0.98); in each template alone it is 1.00. All" in text and "every ABBA" not in text


def test_unseen():
    assert words.unseen(SUMMARY) == ""
    table = SUMMARY | {"side": [1.0] * 3}
    assert "if 9% of all pairs were exceptions" in words.unseen(table)
    assert 0.91**32 == pytest.approx(0.05, abs=0.002)
    assert "if 0.4% of all pairs" in words.unseen(changed(table, "pairs", 0, 840))


def test_line_message():
    assert messages_04.line_message(SUMMARY, a_line()) == (
        "Along component 7.3.5, 88% of the held-out prompts lie on the side of the origin that "
        "goes with the order of their names; the area under the curve is 0.97."
    )
    text = messages_04.line_message(changed(SUMMARY, "side", 0, 1.0), a_line())
    assert text.startswith("Along component 7.3.5, all held-out prompts lie")
    text = messages_04.line_message(changed(SUMMARY, "side", 0, 0.998), a_line())
    assert "99.8% of the held-out prompts" in text, "not 100%"


def test_line_alt():
    text = messages_04.line_alt(SUMMARY, a_line())
    assert text.startswith(messages_04.line_message(SUMMARY, a_line()) + " In each")
    assert text.endswith("In each of 2 templates alone it is 0.91 to 0.99.")
    alike = changed(SUMMARY, "auc", 2, 0.99)
    assert messages_04.line_alt(alike, a_line()).endswith("2 templates alone it is 0.99.")


def sweep_table() -> dict:
    columns: dict = {n: [] for n in ("how", "order", "quantity", "alpha", "mean", "low", "high")}
    for i, how in enumerate(("add", "only")):
        for j, quantity in enumerate(("first", "second", "logits")):
            for alpha in (-20.0, 0.0, 20.0):
                for order, extra in (("ABBA", 0.02), ("BABA", -0.02)):
                    mean = 0.5 + 0.1 * i + 0.01 * alpha * (1 - j) + extra
                    row = (how, order, quantity, alpha, mean, mean, mean)
                    for name, value in zip(columns, row, strict=True):
                        columns[name].append(value)
    return columns


def test_sweep():
    text = words.sweep(sweep_table(), 20.0)
    assert text.startswith("From α = −20.0 to α = +20.0")
    assert (
        "added to the residual stream, αv takes the main mover's attention to the first name from "
        "0.30 to 0.70 and that to the second from 0.50 to 0.50, and logit(first) − logit(second) "
        "from +0.7 to +0.3 nats"
    ) in text
    assert "in place of the head's output, αv takes the main mover's attention to the first" in text
    assert "name from 0.40 to 0.80" in text
    at = sweep_table()["alpha"].index(20.0)
    assert "from 0.30 to 0.95" in words.sweep(changed(sweep_table(), "mean", at, 1.22), 20.0)


def test_sweep_message():
    assert messages_04.sweep_message(sweep_table()) == (
        "Averaged over both orders, adding the line from one end to the other takes the main "
        "mover's attention to the first name from 0.30 to 0.70, and that name's logit "
        "less the second's from +0.7 to +0.3 nats."
    )
    at = sweep_table()["alpha"].index(20.0)
    text = messages_04.sweep_message(changed(sweep_table(), "mean", at, 1.22))
    assert "from 0.30 to 0.95" in text


def test_ends():
    text = words.ends(sweep_table(), 20.0)
    assert text.startswith("At the ends, α = −20.0 → α = +20.0, means over both orders")
    lines = text.splitlines()[-2:]
    assert lines == [
        "| added to the residual stream | 0.30 → 0.70 | 0.50 → 0.50 | +0.7 → +0.3 |",
        "| put in place of the head's output | 0.40 → 0.80 | 0.60 → 0.60 | +0.8 → +0.4 |",
    ]


def test_answer():
    text = words.answer(Interval(7.5, 6.6, 8.4), 10.2, Interval(0.735, 0.7, 0.8))
    assert "lie 10.2 nats apart" in text
    assert (
        "changes it by 7.5 nats on average (95% interval 6.6 to 8.4), 74% of that distance" in text
    )
    text = words.answer(Interval(1.5, 1.1, 1.9), 5.0, Interval(0.3, 0.2, 0.4))
    assert "5.0 nats apart" in text
    assert "1.5 nats on average (95% interval 1.1 to 1.9), 30%" in text


CHANGE = {
    "kind": ["add", "only", "head", "head", "residual"],
    "draw": [0, 0, 0, 1, 0],
    "attention mean": [1.25, 0.9, 0.04, -0.08, -0.003],
    "logits mean": [8.8, 5.0, -0.5, 0.3, 0.01],
}
SHARES = {"head": Interval(0.048, 0.03, 0.06), "residual": Interval(0.0024, 0.001, 0.004)}


@pytest.mark.parametrize(
    "column, row, value, said",
    [
        ("attention mean", 0, 1.44, "changes the attention by 1.44 and"),
        ("logits mean", 0, -2.0, "the logits by -2.0 nats"),
        ("attention mean", 3, -0.4, "by 0.220 on average (4.8% of the line's change) and 0.400 at"),
        ("logits mean", 2, 0.9, "the logits by 0.60 and 0.90 nats"),
        ("attention mean", 4, -0.5, "1 random directions of the whole residual stream change the "
         "attention by 0.500"),
    ],
)  # fmt: skip
def test_random(column, row, value, said):
    assert said not in words.random(CHANGE, SHARES)
    assert said in words.random(changed(CHANGE, column, row, value), SHARES)


def test_random_shares():
    text = words.random(CHANGE, SHARES)
    assert "2 random directions that the head could write" in text
    assert "(4.8% of the line's change)" in text and "(0.2% of the line's change)" in text
    assert "0.002 (95% interval 0.001 to 0.004)" in words.control_note(SHARES["residual"])


def test_random_message():
    """Both kinds of random direction, whatever the sign; the line in place is none of them."""
    assert messages_04.random_message(CHANGE) == (
        "The line changes the mover's attention by 1.25 and the logits by 8.8 nats, 3 equally long "
        "random directions by 0.04 and 0.3 nats on average, 0.08 and 0.5 nats at most."
    )
    text = messages_04.random_message(changed(CHANGE, "attention mean", 4, -1.5))
    assert "by 0.54 and 0.3 nats on average, 1.50 and 0.5 nats at most" in text


TURNED = {
    "way": ["as it is", "added"],
    "attention value": [0.0, 0.9],
    "attention low": [0.0, 0.8],
    "attention high": [0.0, 0.97],
    "answer value": [0.0, 0.25],
    "answer low": [0.0, 0.1],
    "answer high": [0.0, 0.4],
    "left value": [4.4, -1.26],
    "left low": [4.0, -2.0],
    "left high": [5.0, -0.5],
}


def test_turned():
    lines = words.turned(TURNED).splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {5}
    assert lines[3] == "| added | 90% (80% to 97%) | 25% (10% to 40%) | -1.3 (-2.0 to -0.5) |"
    nothing = changed(changed(TURNED, "answer value", 0, None), "attention value", 0, None)
    assert "| as it is | — | — | +4.4 (+4.0 to +5.0) |" in words.turned(nothing)


def test_not_turned():
    text = words.not_turned(TURNED, "added")
    assert text.startswith("Moved added, 10% of the prompts in which the right name was preferred")
    assert "keep the mover's attention on it, and 75% keep their answer." in text
    text = words.not_turned(changed(TURNED, "answer value", 1, 0.5), "added")
    assert "50% keep their answer" in text
    none = changed(TURNED, "answer value", 1, None)
    assert "nothing can be turned" in words.not_turned(none, "added")


def test_heads():
    table = {
        "component": ["7.3.5", "8.6.0"],
        "abba": [14.2, -1.0],
        "baba": [-9.1, -3.5],
        "auc": [0.97, 0.8],
        "auc_low": [0.93, 0.7],
        "auc_high": [0.98, 0.9],
        "side": [0.88, 0.5],
        "side_low": [0.8, 0.4],
        "side_high": [0.92, 0.6],
    }
    change = {"component": ["7.3.5", "8.6.0", "all at once"]}
    for name, values in (("attention", [1.2, 0.1, 1.3]), ("logits", [8.0, 0.5, 8.4])):
        change[f"{name} value"] = values
        change[f"{name} low"] = [v - 0.1 for v in values]
        change[f"{name} high"] = [v + 0.1 for v in values]
    lines = words.heads(table, change).splitlines()
    assert len(lines) == 5 and {line.count("|") for line in lines} == {8}
    assert lines[3] == (
        "| 8.6.0 | -1.0 | -3.5 | 0.80 (0.70 to 0.90) | 50% (40% to 60%) "
        "| +0.10 (+0.00 to +0.20) | +0.5 (+0.4 to +0.6) |"
    )
    assert lines[4] == "| all at once |  |  |  |  | +1.30 (+1.20 to +1.40) | +8.4 (+8.3 to +8.5) |"


EXCHANGES = {
    "given": ["one", "all", "one", "all"],
    "donor": ["a", "a", "b", "b"],
    "attention value": [0.7, 0.97, 0.01, 0.02],
    "attention low": [0.6, 0.9, -0.01, 0.0],
    "attention high": [0.8, 1.05, 0.03, 0.04],
    "answer value": [0.3, 0.6, 0.05, 0.06],
    "answer low": [0.2, 0.5, 0.0, 0.01],
    "answer high": [0.4, 0.7, 0.1, 0.11],
}


def test_exchanges():
    lines = words.exchanges(EXCHANGES, ["a", "b"]).splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {6}
    assert lines[2] == (
        "| one | 70% (60% to 80%) | 30% (20% to 40%) | 1% (-1% to 3%) | 5% (0% to 10%) |"
    )
    assert lines[3].startswith("| all | 97% (90% to 105%) | 60% (50% to 70%) | 2% (")


def test_held_elsewhere():
    text = words.held_elsewhere(EXCHANGES, "a")
    assert "written by then from the a, 60% (50% to 70%) of the logit difference moves" in text
    assert "coordinate alone 30% (20% to 40%). What does not move" in text
    other = changed(EXCHANGES, "answer value", 1, 0.4)
    assert "40% (50% to" in words.held_elsewhere(other, "a")
    assert "6% (1% to 11%) of the logit" in words.held_elsewhere(EXCHANGES, "b")
    all_of_it = changed(EXCHANGES, "answer high", 1, 1.02)
    assert "What does not move" not in words.held_elsewhere(all_of_it, "a")


def test_ranges():
    table = {"factor": [0.5, 2.0]}
    for name, values in (("full", [0.12, 0.51]), ("query", [0.36, 1.24])):
        table[f"{name} value"] = values
        table[f"{name} low"] = [v - 0.05 for v in values]
        table[f"{name} high"] = [v + 0.05 for v in values]
        table[f"{name} random"] = [v / 10 for v in values]
    lines = words.ranges(table).splitlines()
    assert len(lines) == 4 and {line.count("|") for line in lines} == {6}
    assert lines[3] == "| 2 | 0.51 (0.46 to 0.56) | 0.051 | 1.24 (1.19 to 1.29) | 0.124 |"
    assert lines[2].startswith("| 0.5 | 0.12 (0.07 to 0.17) | 0.012 |")


COMPONENTS = {
    "component": [0, 1, 2],
    "change": [0.4, 1.2, 0.1],
    "apart": [3.0, 50.0, 8.0],
    "leading": [False, True, False],
}


def test_components():
    text = words.components(COMPONENTS, 0.234)
    assert "is 0.23 times as long" in text and "Of the head's 3 components" in text
    assert "is number 1, with a change of 1.20 in attention; the largest of another is 0.40" in text
    assert (
        "On the leading one the two orders lie 50.0 apart, on any other at most 8.0. What" in text
    )
    assert text.endswith("is more its use (6.2 times the next) than what it could do (3.0 times)")
    text = words.components(changed(COMPONENTS, "change", 2, 2.5), 1.0)
    assert "is number 2," in text and "another is 2.50" in text and "1.00 times" in text
    text = words.components(changed(COMPONENTS, "apart", 0, 25.0), 1.0)
    assert text.endswith("is more what it could do (3.0 times) than its use (2.0 times the next)")
    behind = changed(changed(COMPONENTS, "apart", 0, 60.0), "change", 0, 1.3)
    assert words.components(behind, 1.0).endswith("on any other at most 60.0")
