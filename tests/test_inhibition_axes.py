"""The inhibition coordinates: ranked by effect on the task of two names, or refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from th_utils import inhibition_axes, models
from th_utils.components import direct_effects
from th_utils.errors import CompanionError
from th_utils.roles import ROLES, Roles
from th_utils.runs import clean_run
from th_utils.svd import ov_svd
from th_utils.tasks import ioi
from th_utils.weights import from_bridge

MOVER, HEADS = (2, 1), [(1, 2), (0, 3)]


def some_roles(mover=(MOVER,), inhibition=((1, 2), (2, 3), (0, 3))) -> Roles:
    heads = {role: [] for role in ROLES} | {"mover": [*mover], "inhibition": [*inhibition]}
    return Roles("measured", heads)


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def svd(bridge):
    return ov_svd(from_bridge(bridge))


@pytest.fixture(scope="module")
def ranking(bridge, svd):
    return inhibition_axes.rank(bridge, svd, some_roles(), seed=3, prompts=8)


def test_ranked_by_the_size_of_the_mean_effect(bridge, svd, ranking):
    """Each effect against its own measurement; heads that come after the mover are left out."""
    run = clean_run(bridge, ioi.prompts(bridge.tokenizer, 8, seed=3, split="find"))
    rank = svd.S.shape[-1]
    assert len(ranking.picks) == len(set(ranking.picks)) == 2 * rank
    assert {pick[:2] for pick in ranking.picks} == set(HEADS)
    sizes = [abs(effect) for effect in ranking.effects]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 3e-4
    assert min(ranking.effects) < 0 < max(ranking.effects), "the sign does not decide"
    for (layer, head, k), effect in zip(ranking.picks, ranking.effects, strict=True):
        direction = svd.V[layer, head][:, k][None]
        alone = direct_effects(bridge, run, (layer, head), MOVER, direction).mean()
        assert effect == pytest.approx(float(alone), abs=1e-6)


def test_leading_axes_are_the_first_of_the_ranking(bridge, svd, ranking):
    axes = inhibition_axes.leading_axes(bridge, svd, some_roles(), 3, seed=3, prompts=8)
    assert axes.heads == tuple(pick[:2] for pick in ranking.picks[:3])
    for direction, (layer, head, k) in zip(axes.directions, ranking.picks, strict=False):
        torch.testing.assert_close(direction, svd.V[layer, head][:, k])
    assert axes[:2].names == inhibition_axes.axes_of(svd, ranking, 2).names


def test_chapters_share_one_ranking(bridge, svd, tmp_path, monkeypatch):
    """Measured once, whatever the chapter's seed; again for other weights."""
    calls = []

    def counted(*args, **options):
        calls.append(options)
        return inhibition_axes.Ranking([(1, 2, 3), (0, 3, 1)], [0.5, -0.25])

    monkeypatch.setattr(inhibition_axes, "rank", counted)
    monkeypatch.setattr("th_utils.memory.cache_dir", lambda: tmp_path)
    chapters = [
        SimpleNamespace(bridge=bridge, roles=some_roles(), seed=seed, checksum=sum_, device="cpu")
        for seed, sum_ in ((0, "a"), (1, "a"), (0, "b"))
    ]
    found = [inhibition_axes.axes_of_chapter(chapter, svd, 2) for chapter in chapters]
    assert [axes.names for axes in found] == [("1.2.3", "0.3.1")] * 3
    assert calls == [{"seed": 0}] * 2


def test_other_axes_are_those_of_random_other_heads(bridge, svd):
    roles = some_roles(inhibition=[(1, 2), (0, 3), (0, 1)])
    how = dict(seed=3, prompts=4)
    drawn = inhibition_axes.other_axes(bridge, svd, roles, 3, draws=4, **how)
    assert len(drawn) == 4 and all(len(axes) == 3 for axes in drawn)
    heads = {head for axes in drawn for head in axes.heads}
    assert {layer for layer, _ in heads} <= {0, 1} and not heads & set(roles["inhibition"])
    assert len({axes.heads for axes in drawn}) > 1
    for axes in drawn:
        assert len(set(axes.heads)) <= len(inhibition_axes.senders(roles))
    again = inhibition_axes.other_axes(bridge, svd, roles, 3, draws=1, **how)
    assert again[0].names == drawn[0].names
    run = clean_run(bridge, ioi.prompts(bridge.tokenizer, 4, seed=3, split="find"))
    own = list(dict.fromkeys(drawn[0].heads))
    best = inhibition_axes.ranked(bridge, run, svd, own, MOVER).picks
    assert set(drawn[0].names) == {"{}.{}.{}".format(*pick) for pick in best[:3]}


def test_there_are_no_other_heads(svd):
    everything = [(0, head) for head in range(svd.S.shape[1])]
    with pytest.raises(CompanionError, match="there are no others"):
        inhibition_axes.other_axes(None, svd, some_roles(inhibition=everything), 1, draws=1, seed=0)


@pytest.mark.parametrize("n", [0, -1, 1000])
def test_too_many_or_none(svd, ranking, n):
    with pytest.raises(CompanionError, match=f"{n} inhibition coordinates: give 1 to "):
        inhibition_axes.axes_of(svd, ranking, n)


def test_models_without_the_heads():
    with pytest.raises(CompanionError, match="no mover head was found"):
        inhibition_axes.senders(some_roles(mover=()))
    with pytest.raises(CompanionError, match="no inhibition head before the main mover 2.1"):
        inhibition_axes.senders(some_roles(inhibition=[(2, 0)]))
