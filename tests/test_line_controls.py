"""Random directions beside a line: each added alone, sizes summed up by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import line, line_controls, line_steering, steering
from th_utils.bootstrap import mean_interval
from th_utils.components import random_directions
from th_utils.runs import CleanRun, clean_run
from th_utils.tasks import ioi

SENDER, MOVER = (1, 2), (2, 1)
REACH = 6.0  # random models write little: far enough for something to happen


@pytest.fixture(scope="module")
def run(bridge) -> CleanRun:
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=5))


@pytest.fixture(scope="module")
def found(bridge, svd, run) -> line.Line:
    return line.choose(bridge, run, svd, SENDER, MOVER)


@pytest.fixture(scope="module")
def swept(bridge, run, found):
    return line_steering.sweep(bridge, run, found, MOVER, np.array([-REACH, REACH]))


@pytest.mark.parametrize("draws", [1, 3])
def test_controls_are_added_one_by_one(bridge, svd, run, found, draws):
    made = line_controls.controls(bridge, run, svd, found, MOVER, REACH, draws=draws, seed=2)
    assert list(made) == ["head", "residual"]
    directions = random_directions(svd, SENDER, draws, seed=2)
    for i in range(draws):
        axes = steering.Axes((SENDER,), directions[i : i + 1], ("random",))
        ends = torch.tensor([-REACH, REACH])[:, None, None]
        after = line_steering.moved(bridge, run, axes, ends, MOVER)
        for name in ("attention", "logits"):
            expected = line_steering.between_ends(getattr(after, name))
            assert getattr(made["head"], name)[:, i] == pytest.approx(expected, abs=1e-4)
    for control in made.values():
        assert control.logits.shape == (4, draws) and np.abs(control.logits).max() > 1e-3
    assert not np.allclose(made["head"].logits, made["residual"].logits, atol=1e-3)


def test_size_of_control():
    control = np.array([[1.0, -1.0], [3.0, -5.0]])
    share = line_controls.size_of_control(control, np.array([4.0, 6.0]), seed=0)
    assert share.value == pytest.approx((2 + 3) / 2 / 5)
    assert share.low <= share.value <= share.high
    # draws that go up and down on different prompts do nothing in the mean
    nothing = line_controls.size_of_control(np.array([[1.0], [-1.0]]), np.ones(2), seed=0)
    assert nothing.value == pytest.approx(0)


def test_interval_of_the_control_covers_pairs_and_draws():
    rng, ones = np.random.default_rng(0), np.ones(40)
    pairs, draws = rng.normal(2, 1, (40, 1)), rng.normal(2, 1, (1, 20))
    for values, n in ((pairs.repeat(20, 1), 40), (draws.repeat(40, 0), 20)):
        found = line_controls.size_of_control(values, ones, seed=1)
        assert found.value == pytest.approx(np.abs(values.mean(0)).mean())
        sizes = np.abs(draws[0]) if n == 20 else pairs[:, 0]
        error = sizes.std() / n**0.5
        assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)
    assert line_controls.size_of_control(np.ones((3, 2)), np.full(3, 4.0), seed=0) == (0.25,) * 3


def test_change_table(bridge, svd, run, found, swept):
    control = line_controls.controls(bridge, run, svd, found, MOVER, REACH, draws=2, seed=2)
    table = line_controls.change_table(swept, control, seed=3)
    assert table["kind"] == ["add", "only", "head", "head", "residual", "residual"]
    assert table["draw"] == [0, 0, 0, 1, 0, 1]
    for name in ("attention", "logits"):
        expected = [
            *(line_steering.between_ends(getattr(swept[how], name)) for how in ("add", "only")),
            *(getattr(control[kind], name)[:, i] for kind in ("head", "residual") for i in (0, 1)),
        ]
        for row, values in enumerate(expected):
            said = [table[f"{name} {end}"][row] for end in ("mean", "low", "high")]
            assert said == pytest.approx(mean_interval(values, seed=3))
