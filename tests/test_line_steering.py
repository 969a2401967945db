"""Prompts moved along a line: full forward passes with the same edit, and sums done by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from th_utils import line, line_steering, steering
from th_utils.bootstrap import mean_interval
from th_utils.line_steering import Preference
from th_utils.patching import ComponentEdit, run_edited
from th_utils.runs import CleanRun, clean_run
from th_utils.tasks import ioi

SENDER, OTHER, MOVER = (1, 2), (0, 1), (2, 1)
REACH = 6.0  # random models write little: far enough for something to happen


@pytest.fixture(scope="module")
def run(bridge) -> CleanRun:
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5))


@pytest.fixture(scope="module")
def found(bridge, svd, run) -> line.Line:
    return line.choose(bridge, run, svd, SENDER, MOVER)


@pytest.fixture(scope="module")
def swept(bridge, run, found):
    alphas = line_steering.sweep_points(REACH, 3)
    return alphas, line_steering.sweep(bridge, run, found, MOVER, alphas)


def forward(bridge, run, axes, values, how) -> Preference:
    """A whole forward pass for one point, names told apart by where they stand."""
    prompts, rows = run.prompts, torch.arange(len(run.prompts))
    end, name = prompts.positions["end"], f"blocks.{MOVER[0]}.attn.hook_pattern"
    if how == "add":
        values = steering.coordinates(bridge, run, axes) + values
    outside = 0.0 if how == "only" else 1.0
    edits = [
        ComponentEdit(
            *head, axes.directions[i : i + 1], outside=outside, value=values[:, i : i + 1]
        )
        for i, head in enumerate(axes.heads)
    ]
    logits, kept = run_edited(bridge, prompts.tokens, edits, positions=end, keep_hooks=[name])
    final, pattern = logits[rows, end].detach(), kept[name][rows, MOVER[1], end]
    first, second, preference = [], [], []
    for i in range(len(prompts)):
        at = {int(prompts.tokens[i, p]): int(p) for p in
              (prompts.positions["IO"][i], prompts.positions["S1"][i])}  # fmt: skip
        (one, p), (two, q) = sorted(at.items(), key=lambda item: item[1])
        first.append(float(pattern[i, p]))
        second.append(float(pattern[i, q]))
        preference.append(float(final[i, one] - final[i, two]))
    return Preference(*(torch.tensor(x)[:, None] for x in (first, second, preference)))


def agree(one: Preference, case: int, expected: Preference) -> None:
    for name, atol in (("first", 1e-5), ("second", 1e-5), ("logits", 1e-4)):
        torch.testing.assert_close(
            getattr(one, name)[:, case], getattr(expected, name)[:, 0], atol=atol, rtol=0
        )


def test_clean_is_a_forward_pass(bridge, run, found):
    none = torch.zeros(len(run.prompts), 1)
    agree(line_steering.clean(run, MOVER), 0, forward(bridge, run, found.axes, none, "add"))


@pytest.mark.parametrize("how", ["add", "only"])
def test_sweep_is_a_forward_pass_for_each_point(bridge, run, found, swept, how):
    alphas, preference = swept
    assert alphas.tolist() == [-REACH, 0, REACH]
    for case, alpha in enumerate(alphas):
        point = torch.full((len(run.prompts), 1), float(alpha))
        agree(preference[how], case, forward(bridge, run, found.axes, point, how))
    change = preference[how].logits[:, -1] - preference[how].logits[:, 0]
    assert float(change.abs().max()) > 1e-2, "something has to happen, or agreement says nothing"
    assert float(preference[how].attention.diff(dim=1).abs().max()) > 1e-3


def test_adding_nothing_is_the_clean_run(run, swept):
    torch.testing.assert_close(
        swept[1]["add"].logits[:, 1],
        line_steering.clean(run, MOVER).logits[:, 0],
        atol=1e-4,
        rtol=0,
    )


def test_exchanged_takes_the_other_order(bridge, run, found):
    wide = dataclasses.replace(found, abba=5.0, baba=-3.0)
    other = torch.where(run.prompts.abba, -3.0, 5.0)[:, None]
    natural = steering.coordinates(bridge, run, found.axes)
    expected = forward(bridge, run, found.axes, other - natural, "add")
    agree(line_steering.exchanged(bridge, run, wide, MOVER), 0, expected)


# --- tables


def test_sweep_table(run, swept):
    alphas, preference = swept
    table = line_steering.sweep_table(preference, alphas, run.prompts, seed=4)
    rows = list(zip(*table.values(), strict=True))
    assert len(rows) == 2 * 3 * 3 * 2 and len({row[:4] for row in rows}) == len(rows)
    for how, order, quantity, alpha, *interval in rows:
        case = alphas.tolist().index(alpha)
        of = run.prompts.abba if order == "ABBA" else ~run.prompts.abba
        values = getattr(preference[how], quantity)[of, case].double().numpy()
        assert interval == pytest.approx(mean_interval(values, seed=4), abs=1e-6)


def test_between_ends():
    values = torch.tensor([[0.0, 9.0, 1.0], [1.0, 9.0, 4.0]])
    assert line_steering.between_ends(values).tolist() == [2.0]


def test_orders_apart(run):
    preference = line_steering.clean(run, MOVER)
    found = line_steering.orders_apart(preference, run.prompts.abba)
    # right minus wrong name of both prompts, added up
    assert found == pytest.approx(2 * ioi.pair_means(run.logit_difference), abs=1e-5)


# --- what turns


def preference(attention: list[list[float]], logits: list[list[float]]) -> Preference:
    first = torch.tensor(attention)
    return Preference(first, torch.zeros_like(first), torch.tensor(logits))


ABBA = torch.tensor([True, False, True, False])


def test_against_takes_the_end_that_speaks_against_the_order():
    values = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0], [-5.0, 0.0, 6.0], [7.0, 0.0, -8.0]])
    assert line_steering.against(values, ABBA).tolist() == [1, -4, -5, 8]


def test_turned():
    before = preference([[0.5], [-0.5], [0.5], [-0.5]], [[2.0], [-2.0], [1.0], [1.0]])
    # the fourth prompt prefers the wrong name from the start: its answer cannot turn
    after = preference(
        [[-0.1, 0.9], [-0.9, 0.1], [-0.1, 0.9], [-0.9, -0.1]],
        [[-1.0, 3.0], [-3.0, -1.0], [0.5, 3.0], [-3.0, 2.0]],
    )
    table = line_steering.turned(before, {"added": after}, ABBA, seed=0)
    assert table["way"] == ["as it is", "added"]
    assert table["attention value"] == pytest.approx([0, 3 / 4])
    assert table["answer value"] == pytest.approx([0, 1 / 3])
    assert table["left value"] == pytest.approx([(2 + 2 + 1 - 1) / 4, (-1 + 1 + 0.5 - 2) / 4])
    assert table["attention low"][1] == pytest.approx(0.5) and table["attention high"][1] == 1


def test_nothing_turns_where_nothing_is_right():
    wrong = preference([[-0.5], [0.5]], [[-2.0], [2.0]])
    table = line_steering.turned(wrong, {"added": wrong}, ABBA[:2], seed=0)
    assert table["attention value"] == [None, None] == table["answer high"]
    assert table["left value"] == [-2, -2]


def test_heads_moved(bridge, svd, run, found):
    lines = [found, line.choose(bridge, run, svd, OTHER, MOVER)]
    table = line_steering.heads_moved(bridge, run, lines, MOVER, 20.0, seed=1)
    assert table["component"] == [lines[0].name, lines[1].name, "all at once"]
    sets = [lines[:1], lines[1:], lines]
    for row, some in enumerate(sets):
        axes = steering.Axes(
            tuple(each.head for each in some),
            torch.cat([each.axes.directions for each in some]),
            tuple(each.name for each in some),
        )
        ends = torch.tensor([[20 * each.spread for each in some]]).expand(len(run.prompts), -1)
        after = steering.steer(
            bridge, run, axes, torch.stack([-ends, ends]), how="add", watch=[MOVER]
        )
        sign = torch.where(run.prompts.abba, 1.0, -1.0)
        change = sign * (after.logit_difference[:, 1] - after.logit_difference[:, 0])
        assert table["logits value"][row] == pytest.approx(float(change.mean()), abs=1e-4)
        assert table["logits low"][row] <= table["logits value"][row] <= table["logits high"][row]
    assert max(map(abs, table["logits value"])) > 1e-3
    one = line_steering.heads_moved(bridge, run, lines[:1], MOVER, 20.0, seed=1)
    assert one["component"] == [lines[0].name]
