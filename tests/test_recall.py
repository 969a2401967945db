"""Recall of lists: the numbers of whole forward passes, and statistics of made-up answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils import models, recall
from th_utils.errors import CompanionError
from th_utils.recall import Recalled, over_lists
from th_utils.runs import clean_run
from th_utils.steering import component_axes, coordinates
from th_utils.svd import ov_svd
from th_utils.tasks import lists
from th_utils.weights import from_bridge

WORDS = ["ring", "book", "ball", "bone", "kiss", "snack"]
PICKS = [(0, 1, 0), (1, 2, 1), (0, 1, 3)]
MOVER = (2, 3)


@pytest.fixture(scope="module", params=["tiny_gpt2", "tiny_neox", "tiny_llama"])
def bridge(request):
    return models.load(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def axes(bridge):
    return component_axes(ov_svd(from_bridge(bridge)), PICKS)


@pytest.mark.parametrize("length, order", [(2, "list"), (4, "shuffled")])
def test_is_what_a_whole_pass_shows(bridge, axes, length, order):
    """Lists of several templates, padded to one length."""
    prompts = lists.prompts(bridge.tokenizer, 3, length, words=WORDS, order=order, seed=2)
    found, run = recall.recall(bridge, prompts, axes, MOVER), clean_run(bridge, prompts)
    torch.testing.assert_close(found.logits, run.logits, atol=1e-4, rtol=0)
    assert torch.equal(found.correct, run.correct)
    natural = coordinates(bridge, run, axes)
    torch.testing.assert_close(found.coordinates, natural, atol=1e-5, rtol=1e-4)
    pattern = run.pattern["end"][MOVER[0]][:, MOVER[1]]
    torch.testing.assert_close(found.looks, pattern.gather(1, prompts.items), atol=1e-5, rtol=0)
    assert natural.std(0).min() > 1e-4, "prompts have to differ, or agreement says nothing"
    same = recall.recalled(bridge, run, axes, MOVER)
    torch.testing.assert_close(same.looks, found.looks, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mover, said", [((3, 0), "layer 3"), ((2, 9), "head 9")])
def test_heads_that_are_not_there(bridge, axes, mover, said):
    prompts = lists.prompts(bridge.tokenizer, 1, 2, words=WORDS)
    with pytest.raises(CompanionError, match=f"{said} is out of range"):
        recall.recall(bridge, prompts, axes, mover)


# --- statistics of made-up answers


def answered(right: list[list[int]], listed: list[list[int]] | None = None, names=0) -> Recalled:
    """A run in which these prompts are right, by list and place."""
    right = torch.tensor(right)
    n_lists, n = right.shape
    answers = names + torch.arange(n_lists * n).reshape(n_lists, n).repeat_interleave(n, dim=0)
    target = torch.arange(n).repeat(n_lists)
    empty = torch.zeros(n_lists * n, n, dtype=torch.long)
    prompts = lists.ListPrompts(
        tokens=empty, positions={"end": target}, items=empty, again=empty, answers=answers,
        target=target, template=target, texts=("",) * (n_lists * n),
    )  # fmt: skip
    first = torch.tensor(listed).flatten() if listed else right.flatten()
    logits = torch.zeros(n_lists * n, n)
    rows = torch.arange(n_lists * n)
    logits[rows, torch.where(first.bool(), target, (target + 1) % n)] = 1.0
    return Recalled(prompts, logits, right.flatten().bool(), torch.zeros(n_lists * n, 2), logits)


def test_right_over_the_vocabulary_and_among_items():
    run = answered([[1, 0, 0], [1, 1, 0]], listed=[[1, 1, 0], [1, 1, 1]])
    assert run.correct.tolist() == [True, False, False, True, True, False]
    assert run.listed.tolist() == [True, True, False, True, True, True]
    assert run.lists(run.correct).tolist() == [[1, 0, 0], [1, 1, 0]]
    table = recall.accuracy_table([("list", run)], seed=0)
    assert table["mean"] == pytest.approx([0.5, 5 / 6])
    assert table["among"] == ["vocabulary", "listed"] and table["lists"] == [2, 2]
    assert table["chance"] == pytest.approx([1 / 3] * 2)
    assert (table["low"][0], table["high"][0]) == pytest.approx((1 / 3, 2 / 3)), "over lists"


def test_places():
    run = answered([[1, 0, 0], [1, 1, 0]], listed=[[1, 1, 0], [1, 1, 1]])
    table = recall.place_table([("shuffled", run)], seed=0)
    assert table["place"] == [1, 2, 3] and table["order"] == ["shuffled"] * 3
    assert table["mean"] == [1.0, 0.5, 0.0] and table["listed"] == [1.0, 1.0, 0.5]
    assert (table["low"][1], table["high"][1]) == (0.0, 1.0)


def test_fall_with_length_resamples_each_length_by_itself():
    short, long = answered([[1, 1], [1, 0]]), answered([[1, 0, 0, 0]] * 5)
    found = recall.fall_with_length(short, long, seed=0)
    assert found == pytest.approx((0.5, 0.25, 0.75))


def test_places_are_chosen_on_the_other_half():
    chosen_on = answered([[1, 0, 1], [1, 0, 0]])
    reported_on = answered([[0, 1, 1], [1, 0, 1], [0, 1, 1]])
    found, best, worst = recall.spread_of_places(chosen_on, reported_on, seed=0)
    assert (best, worst) == (0, 1), "not the best and worst of the half reported"
    assert found.value == pytest.approx(-1 / 3) and found.low == -1.0
    with pytest.raises(CompanionError, match="lists of 3 items say nothing of lists of 2"):
        recall.spread_of_places(chosen_on, answered([[1, 1]]), seed=0)


def test_places_that_are_equal_are_all_named():
    assert recall.extremes(answered([[1, 0, 1, 0], [1, 1, 1, 0]])) == ([0, 2], [3])
    assert recall.extremes(answered([[1, 1]])) == ([0, 1], [0, 1])


def test_cost_of_shuffling_is_the_mean_over_lengths():
    pairs = [
        (answered([[1, 1], [1, 1]]), answered([[1, 0], [0, 0]])),
        (answered([[1, 1, 0]] * 3), answered([[1, 1, 0]] * 3)),
    ]
    found, each = recall.cost_of_shuffling(pairs, seed=0)
    assert found.value == pytest.approx(0.375)
    assert [x.value for x in each] == pytest.approx([0.75, 0.0])
    assert found.low == pytest.approx(0.25) and found.high == pytest.approx(0.5)
    with pytest.raises(CompanionError, match="on the same lists"):
        recall.cost_of_shuffling([(pairs[0][0], answered([[1, 0], [0, 0]], names=9))], seed=0)


def test_intervals_of_independent_groups():
    """The interval of a difference has the width that the two variances give it."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 400), rng.normal(0, 2, 100)
    found = over_lists(lambda x, y: x.mean() - y.mean(), [a, b], seed=1)
    width = 2 * 1.96 * np.sqrt(a.var() / 400 + b.var() / 100)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert found == over_lists(lambda x, y: x.mean() - y.mean(), [a, b], seed=1)
    for groups in ([], [a, b[:0]]):
        with pytest.raises(CompanionError, match="at least one list of each kind"):
            over_lists(lambda *x: 0.0, groups, seed=0)
