"""Grids, crowding and selections: by hand, against the full forward, and with a planted index."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up import GOOD, HALF, made_up, selection

from th_utils import index_space, models
from th_utils.errors import CompanionError
from th_utils.patching import ComponentEdit, run_edited
from th_utils.recall import recall, recalled
from th_utils.runs import clean_run
from th_utils.steering import component_axes
from th_utils.svd import ov_svd
from th_utils.tasks import lists
from th_utils.weights import from_bridge

WORDS = ["ring", "book", "ball", "bone", "kiss", "snack"]
PICKS = [(0, 1, 0), (1, 2, 1)]
MOVER = (2, 3)


@pytest.fixture(scope="module", params=["tiny_gpt2", "tiny_neox", "tiny_llama"])
def bridge(request):
    return models.load(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def svd(bridge):
    return ov_svd(from_bridge(bridge))


@pytest.fixture(scope="module")
def axes(svd):
    return component_axes(svd, PICKS)


@pytest.fixture(scope="module")
def halves(bridge):
    return [
        clean_run(bridge, lists.prompts(bridge.tokenizer, n, 3, words=WORDS, split=split))
        for n, split in ((2, "find"), (3, "report"))
    ]


# --- the grid


def test_extents_are_those_of_the_largest_size():
    runs = [made_up(np.array([[[1.0, -2.0], [0.5, 1.0]]])), made_up(np.array([[[-3.0, 0.0]] * 2]))]
    assert index_space.extents(runs).tolist() == [4.5, 3.0]


# --- the grid


def test_grid():
    extent = torch.tensor([2.0, 1.0])
    points = index_space.grid(extent, 9)
    expected = [[x, y] for x in (-2.0, 0.0, 2.0) for y in (-1.0, 0.0, 1.0)]
    assert points.tolist() == expected
    assert index_space.grid(extent[:1], 5).tolist() == [[-2.0], [-1.0], [0.0], [1.0], [2.0]]
    sizes = [len(index_space.grid(torch.ones(d), 343)) for d in (1, 2, 3, 4)]
    assert sizes == [343, 361, 343, 256]
    with pytest.raises(CompanionError, match="0 points in 3 dimensions"):
        index_space.levels(0, 3)


def test_looks_are_those_of_a_full_forward(bridge, axes, halves):
    run = halves[0]
    points = index_space.grid(torch.tensor([3.0, 5.0]), 4)
    found = index_space.looks(bridge, run, axes, points, MOVER)
    assert found.shape == (4, 6, 3)
    prompts, rows = run.prompts, torch.arange(6)
    name = f"blocks.{MOVER[0]}.attn.hook_pattern"
    for point, seen in zip(points, found, strict=True):
        edits = [
            ComponentEdit(*head, axes.directions[i : i + 1], value=point[i : i + 1])
            for i, head in enumerate(axes.heads)
        ]
        _, kept = run_edited(
            bridge, prompts.tokens, edits, positions=prompts.positions["end"], keep_hooks=[name]
        )
        pattern = kept[name][rows, MOVER[1], prompts.positions["end"]]
        torch.testing.assert_close(seen, pattern.gather(1, prompts.items), atol=1e-5, rtol=0)
    assert found.std(0).max() > 1e-3, "the points have to matter, or agreement says nothing"


def one_hot(items: list[list[int]], n: int = 3, size: float = 0.5) -> torch.Tensor:
    """Attention that is all on one item, by point and prompt."""
    return size * torch.nn.functional.one_hot(torch.tensor(items), n).float()


def test_choice_by_share_and_then_by_attention():
    looked = one_hot([[0, 0, 1, 1], [0, 0, 0, 2], [2, 2, 1, 1], [1, 1, 2, 0]])
    chosen, share = index_space.choose(looked)
    assert chosen.tolist()[0] == 1 and share[1].tolist() == [0.75, 0, 0.25]
    assert share[:, 1].tolist() == [0.5, 0, 0.5, 0.5], "three points are equally good"
    looked[2, 3, 1] = 0.6
    assert index_space.choose(looked)[0].tolist() == [1, 2, 2]
    # attention never outweighs one prompt more
    looked = torch.tensor([[[0.1, 0.0], [0.1, 0.0]], [[1.0, 0.0], [0.98, 0.99]]])
    assert index_space.choose(looked)[0].tolist()[0] == 0


def test_select_tries_elsewhere_what_was_chosen(bridge, axes, halves):
    find, report = halves
    extent = torch.tensor([3.0, 5.0])
    found = index_space.select(bridge, find, report, axes, extent, 9, MOVER)
    points = index_space.grid(extent, 9)
    searched = index_space.looks(bridge, find, axes, points, MOVER)
    chosen, shares = index_space.choose(searched)
    assert torch.equal(found.chosen, chosen) and torch.equal(found.shares, shares)
    tried = index_space.looks(bridge, report, axes, points, MOVER)
    assert found.found.shape == (2, 3) and found.reported.shape == (3, 3)
    for place, point in enumerate(chosen.tolist()):
        for looked, hits in ((searched, found.found), (tried, found.reported)):
            right = (looked[point].argmax(-1) == place).double().unflatten(0, (-1, 3)).mean(1)
            np.testing.assert_allclose(hits[:, place], right.numpy())
        anywhere = (searched.argmax(-1) == place).any(0).double().mean()
        assert found.reached[place] == pytest.approx(float(anywhere))
        assert found.reached[place] >= found.found[:, place].mean()
        assert found.attention[place] == pytest.approx(
            float(tried[point, :, place].mean()), abs=1e-5
        )


def test_random_subspaces_are_searched_alike(bridge, svd, axes, halves):
    extent = torch.tensor([3.0, 5.0])
    how = dict(draws=2, seed=4)
    drawn = index_space.select_at_random(bridge, *halves, svd, axes, extent, 9, MOVER, **how)
    assert len(drawn) == 2 and not torch.equal(*(each.axes.directions for each in drawn))
    for each in drawn:
        assert each.axes.heads == axes.heads and torch.equal(
            each.points, index_space.grid(extent, 9)
        )
        again = index_space.select(bridge, *halves, each.axes, extent, 9, MOVER)
        np.testing.assert_array_equal(again.reported, each.reported)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(extent=torch.ones(3)), "extent has shape"),
        (dict(mover=(0, 0)), "are not after layer 0"),
        (dict(mover=(2, 9)), "out of range"),
    ],
)
def test_bad_input(bridge, axes, halves, change, said):
    given = dict(extent=torch.ones(2), mover=MOVER) | change
    with pytest.raises(CompanionError, match=said):
        index_space.select(bridge, *halves, axes, given["extent"], 4, given["mover"])


def test_points_are_tried_on_lists_of_the_same_length(bridge, axes, halves):
    other = clean_run(bridge, lists.prompts(bridge.tokenizer, 2, 2, words=WORDS))
    with pytest.raises(CompanionError, match="chosen on lists of 3 items, tried on 2"):
        index_space.select(bridge, halves[0], other, axes, torch.ones(2), 4, MOVER)


def test_nothing_set(bridge, axes, halves):
    run = halves[1]
    hits = index_space.clean_hits(recalled(bridge, run, axes, MOVER))
    assert hits.shape == (3, 3)
    np.testing.assert_allclose(hits.sum(1), 1)
    rows = torch.arange(9)
    pattern = run.pattern["end"][MOVER[0], rows, MOVER[1]]
    first = torch.stack([pattern[rows, run.prompts.items[:, k]] for k in range(3)], 1)
    first = first.argmax(1).numpy()
    expected = np.bincount(first, minlength=3) / 9
    np.testing.assert_allclose(hits.mean(0), expected)
    found = index_space.looks_at_target(recalled(bridge, run, axes, MOVER))
    right = (first == run.prompts.target.numpy()).reshape(3, 3).mean(1)
    np.testing.assert_allclose(found, right)


# --- what the claims ask, of made-up selections


def test_share_and_gain():
    one, other = selection(GOOD, GOOD), selection(GOOD, HALF)
    assert index_space.share(one, seed=0) == pytest.approx((0.9, 0.9, 0.9))
    assert index_space.gain(one, other, seed=0) == pytest.approx((0.4, 0.4, 0.4))
    assert index_space.gain(other, one, seed=0).value == pytest.approx(-0.4)


def test_shares_above_chance():
    """Chance is a half of two places: 0.9 is 0.4 above it."""
    one = selection(GOOD, [[0.7, 0.7], [0.7, 0.7], [0.7, 0.7]])
    assert index_space.carried_over(one, seed=0) == pytest.approx((0.5,) * 3)
    control = selection(GOOD, [[0.6, 0.6]] * 2), selection(GOOD, [[0.5, 0.5]] * 2)
    whole = selection(GOOD, GOOD)
    found = index_space.random_share(control, whole, seed=0)
    assert found == pytest.approx((0.125, 0.0, 0.25)), "one draw alone has a quarter or nothing"
    assert index_space.random_share(control[:1], whole, seed=0) == pytest.approx((0.25,) * 3)
    with pytest.raises(CompanionError, match="no random subspace"):
        index_space.random_share([], whole, seed=0)


def test_interval_of_random_subspaces_covers_the_draws():
    """Lists are all alike here, so that only the subspaces drawn leave anything open."""
    whole, some = selection(GOOD, GOOD), selection(GOOD, [[0.5, 0.5]] * 2)
    found = index_space.random_share([whole, some], whole, seed=0)
    assert found == pytest.approx((0.5, 0.0, 1.0))


def test_gains_by_place_are_over_lists():
    clean = np.array([[0.0, 1.0], [0.5, 0.5]])
    one, two = index_space.gains_by_place(selection(GOOD, GOOD), clean, seed=0)
    assert one == pytest.approx((0.75, 0.5, 1.0)) and two == pytest.approx((0.05, -0.2, 0.3))


def test_what_is_at_chance_has_no_share():
    """Neither claim may hold by dividing nothing by nothing."""
    nothing, good = selection(HALF, HALF), selection(GOOD, GOOD)
    assert index_space.carried_over(nothing, seed=0) == (0.0, 0.0, 0.0)
    assert index_space.random_share([nothing], nothing, seed=0) == (1.0, 1.0, 1.0)
    assert index_space.random_share([good], nothing, seed=0).value == 1.0


def test_natural_extent_of_a_model(bridge, axes):
    prompts = lists.prompts(bridge.tokenizer, 2, 2, words=WORDS, split="find")
    run = recall(bridge, prompts, axes, MOVER)
    assert torch.equal(index_space.extents([run]), 1.5 * run.coordinates.abs().amax(0))
