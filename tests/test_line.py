"""The line of one component: chosen, oriented, and how far it tells the orders apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import line
from th_utils.bootstrap import bootstrap, mean_interval
from th_utils.components import direct_effects
from th_utils.errors import CompanionError
from th_utils.patching import head_outputs
from th_utils.runs import CleanRun, clean_run
from th_utils.svd import HeadSVD
from th_utils.tasks import ioi

MOVER = (2, 1)


@pytest.fixture(scope="module")
def run(bridge) -> CleanRun:
    return clean_run(bridge, ioi.prompts(bridge.tokenizer, 16, seed=5))


def textbook_area(pairs: np.ndarray) -> float:
    """All comparisons of an ABBA with a BABA prompt, one by one."""
    won = [1.0 if a > b else 0.5 if a == b else 0.0 for a in pairs[:, 0] for b in pairs[:, 1]]
    return float(np.mean(won))


def some_pairs(n: int, seed: int = 0) -> np.ndarray:
    """Overlapping orders, with ties."""
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(size=(n, 2)) + [0.7, 0.0], 1)


# --- chosen on one half


@pytest.mark.parametrize("sender", [(0, 0), (1, 2), (1, 1)])
def test_choice(bridge, svd, run, sender):
    found = line.choose(bridge, run, svd, sender, MOVER)
    effects = direct_effects(bridge, run, sender, MOVER, svd.V[sender].mT).mean(0)
    assert found.component == int(effects.argmax()) and found.head == sender
    assert found.name == f"{sender[0]}.{sender[1]}.{found.component}"
    (direction,) = found.axes.directions
    along = float(direction @ svd.V[sender][:, found.component])
    assert abs(along) == pytest.approx(1, abs=1e-5)
    by_hand = head_outputs(bridge, run, *sender) @ direction
    torch.testing.assert_close(line.coordinates(bridge, run, found), by_hand)
    abba = run.prompts.abba
    assert found.abba == pytest.approx(float(by_hand[abba].mean()), abs=1e-6)
    assert found.baba == pytest.approx(float(by_hand[~abba].mean()), abs=1e-6)
    assert found.abba > found.baba
    assert found.spread == pytest.approx((abs(found.abba) + abs(found.baba)) / 2)
    other = found.natural(abba, other=True)
    assert float(other[0]) == pytest.approx(found.baba) and bool(abba[0])
    assert found.natural(abba)[abba].tolist() == pytest.approx([found.abba] * 8)


def test_orientation_does_not_depend_on_the_sign_of_the_svd(bridge, svd, run):
    turned = HeadSVD(-svd.U, svd.S, -svd.V)
    one, other = (line.choose(bridge, run, s, (1, 2), MOVER) for s in (svd, turned))
    torch.testing.assert_close(one.axes.directions, other.axes.directions)


def test_only_heads_before_the_mover_have_a_line(bridge, svd, run):
    found = line.choose_all(bridge, run, svd, [(2, 0), (1, 2), (0, 1)], MOVER)
    assert [each.head for each in found] == [(1, 2), (0, 1)]
    for none in ([], [(2, 0)]):
        with pytest.raises(CompanionError, match="no inhibition head before the main mover"):
            line.choose_all(bridge, run, svd, none, MOVER)


# --- statistics


def test_by_order():
    values, abba = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([True, False, False, True])
    assert line.by_order(values, abba).tolist() == [[1, 2], [4, 3]]
    for wrong in ([True, True, False, False], [True, False, True]):
        with pytest.raises(CompanionError, match="pairs"):
            line.by_order(values[: len(wrong)], torch.tensor(wrong))


@pytest.mark.parametrize("n", [1, 7, 20])
def test_area(n):
    pairs = some_pairs(n)
    found = line.area(pairs, seed=3)
    assert found.value == pytest.approx(textbook_area(pairs))
    assert found == pytest.approx(bootstrap(textbook_area, [pairs], seed=3))
    assert line.area(-pairs, seed=3).value == pytest.approx(1 - found.value)


def test_area_of_orders_wholly_apart():
    assert line.area(np.array([[1.0, -1.0], [0.5, 0.4]]), seed=0) == (1, 1, 1)
    assert line.area(np.array([[-1.0, 1.0], [0.4, 0.5]]), seed=0) == (0, 0, 0)
    assert line.area(np.zeros((3, 2)), seed=0) == (0.5, 0.5, 0.5)


def test_lowest_area():
    pairs, template = some_pairs(20), np.arange(20) % 4 % 3  # the first template has most
    pairs[template == 1] += [[0, 1.5]]

    def lowest(sample: np.ndarray) -> float:
        of = sample[:, 2]
        return min(textbook_area(sample[of == t, :2]) for t in np.unique(of))

    found = line.lowest_area(pairs, template, seed=1)
    together = np.column_stack([pairs, template])
    assert found == pytest.approx(bootstrap(lowest, [together], seed=1))
    assert found.value == pytest.approx(textbook_area(pairs[template == 1]))


def test_right_side_of_the_origin():
    pairs = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [0.0, -2.0]])
    assert line.right_side(pairs).tolist() == [1, 0.5, 0, 0.5], "the origin is on neither side"


# --- tables


def test_prompt_table(bridge, run):
    prompts = run.prompts
    values = torch.linspace(-1, 2, 16) * torch.tensor([1.0, -1.0]).repeat(8)
    points, summary = line.prompt_table(values, prompts, seed=2)
    assert points["coordinate"] == pytest.approx(values.tolist())
    assert points["order"] == ["ABBA", "BABA"] * 8
    assert points["template"] == [t + 1 for t in prompts.template.tolist()]
    pairs, template = values.numpy().reshape(-1, 2), np.array(points["template"][::2])
    assert summary["template"] == [0, *sorted(set(points["template"]))]
    for row, number in enumerate(summary["template"]):
        of = pairs if number == 0 else pairs[template == number]
        assert summary["pairs"][row] == len(of)
        for name, expected in (
            ("auc", line.area(of.astype(float), seed=2)),
            ("side", mean_interval(line.right_side(of), seed=2)),
        ):
            said = [summary[key][row] for key in (name, f"{name}_low", f"{name}_high")]
            assert said == pytest.approx(expected, abs=1e-6)


def test_heads_table(bridge, svd, run):
    lines = [line.choose(bridge, run, svd, sender, MOVER) for sender in ((1, 2), (0, 1))]
    table = line.heads_table(bridge, run, lines, seed=0)
    assert table["component"] == [each.name for each in lines]
    assert table["abba"] == pytest.approx([each.abba for each in lines], abs=1e-6)
    assert table["baba"] == pytest.approx([each.baba for each in lines], abs=1e-6)
    for row, each in enumerate(lines):
        pairs = line.by_order(line.coordinates(bridge, run, each), run.prompts.abba)
        assert table["auc"][row] == pytest.approx(textbook_area(pairs))
        assert table["side"][row] == pytest.approx(float(line.right_side(pairs).mean()))
        assert table["auc_low"][row] <= table["auc"][row] <= table["auc_high"][row]
