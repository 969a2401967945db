"""Coordinates set at the end position: the numbers of a full forward pass with the same edit."""

from __future__ import annotations

import inspect

import pytest
import torch

from th_utils import models, steering
from th_utils.errors import CompanionError
from th_utils.patching import ComponentEdit, run_edited
from th_utils.runs import clean_run
from th_utils.svd import ov_svd
from th_utils.tasks import lists
from th_utils.weights import from_bridge

PICKS = [(0, 1, 0), (0, 1, 3), (1, 2, 1)]  # two components of one head, one of a later head
WATCH = [(1, 0), (2, 3)]
WORDS = ["ring", "book", "ball", "bone", "kiss", "snack"]


@pytest.fixture(scope="module", params=["tiny_gpt2", "tiny_neox", "tiny_llama"])
def bridge(request):
    return models.load(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def svd(bridge):
    return ov_svd(from_bridge(bridge))


@pytest.fixture(scope="module")
def run(bridge):
    return clean_run(bridge, lists.prompts(bridge.tokenizer, 2, 3, words=WORDS))


@pytest.fixture(scope="module")
def axes(svd):
    return steering.component_axes(svd, PICKS)


def values(cases: int, prompts: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return 3 * torch.randn(cases, prompts, len(PICKS), generator=generator)


def full(bridge, run, axes, point, how):
    """A whole forward pass, edits by hooks; `point` is [prompt, axis]."""
    edits = []
    for head in dict.fromkeys(axes.heads):
        at = [i for i, other in enumerate(axes.heads) if other == head]
        outside = 0.0 if how == "only" else 1.0
        edits.append(ComponentEdit(*head, axes.directions[at], outside=outside, value=point[:, at]))
    names = [f"blocks.{layer}.attn.hook_pattern" for layer, _ in WATCH]
    prompts = run.prompts
    logits, kept = run_edited(
        bridge, prompts.tokens, edits, positions=prompts.positions["end"], keep_hooks=names
    )
    rows, end = torch.arange(len(prompts)), prompts.positions["end"]
    patterns = {
        pair: kept[name][rows, pair[1], end] for pair, name in zip(WATCH, names, strict=True)
    }
    return logits[rows, end], patterns


@pytest.mark.parametrize("how", ["replace", "only"])
@pytest.mark.parametrize("one", [False, True], ids=["per prompt", "same for all"])
def test_agrees_with_the_full_forward(bridge, run, axes, how, one):
    n = len(run.prompts)
    points = values(3, 1 if one else n)
    found = steering.steer(bridge, run, axes, points, how=how, watch=WATCH, vocabulary=True)
    for case, point in enumerate(points.expand(-1, n, -1)):
        logits, patterns = full(bridge, run, axes, point, how)
        expected = logits.gather(-1, run.prompts.answers)
        assert float((found.logits[:, case] - expected).abs().max()) < 1e-4
        assert torch.equal(found.top[:, case], logits.argmax(-1))
        for pair in WATCH:
            assert float((found.patterns[pair][:, case] - patterns[pair]).abs().max()) < 1e-5
    moved = found.logits - run.logits[:, None]
    assert float(moved.abs().max()) > 1e-2, "something has to happen, or agreement says nothing"


def test_adding_in_one_layer_is_replacing_by_the_sum(bridge, run, svd):
    axes = steering.component_axes(svd, PICKS[:2])
    step = values(2, 1)[..., :2]
    natural = steering.coordinates(bridge, run, axes)
    added = steering.steer(bridge, run, axes, step, how="add")
    replaced = steering.steer(bridge, run, axes, natural + step)
    torch.testing.assert_close(added.logits, replaced.logits, atol=1e-4, rtol=0)


def test_natural_coordinates_change_nothing(bridge, run, svd):
    axes = steering.component_axes(svd, PICKS[:2])
    natural = steering.coordinates(bridge, run, axes)[None]
    found = steering.steer(bridge, run, axes, natural)
    torch.testing.assert_close(found.logits[:, 0], run.logits, atol=1e-4, rtol=0)


def test_batches_change_nothing(bridge, run, axes):
    points = values(7, 1)
    whole, parts = (
        steering.steer(bridge, run, axes, points, watch=WATCH, memory=memory)
        for memory in (2**28, 2**18)
    )
    torch.testing.assert_close(whole.logits, parts.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.patterns[WATCH[1]], parts.patterns[WATCH[1]])


def test_without_logits_the_patterns_are_the_same(bridge, run, axes):
    """Stopping after the head watched changes nothing at it, wherever it is."""
    points = values(3, 1)
    whole = steering.steer(bridge, run, axes, points, watch=WATCH)
    for watch in (WATCH, WATCH[:1]):
        part = steering.steer(bridge, run, axes, points, watch=watch, logits=False)
        assert part.logits.shape == (len(run.prompts), 3, 0)
        for pair in watch:
            torch.testing.assert_close(part.patterns[pair], whole.patterns[pair])


def test_random_axes_are_written_by_the_same_heads(svd, axes):
    drawn = steering.random_axes(svd, axes, seed=1)
    assert drawn.heads == axes.heads
    same = drawn.directions[:2]
    torch.testing.assert_close(same @ same.mT, torch.eye(2), atol=1e-5, rtol=0)
    for head, direction in zip(drawn.heads, drawn.directions, strict=True):
        V = svd.V[head]
        torch.testing.assert_close(V @ (V.mT @ direction), direction, atol=1e-5, rtol=0)
    assert not torch.allclose(drawn.directions, steering.random_axes(svd, axes, seed=2).directions)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(how="multiply"), "how 'multiply' is unknown"),
        (dict(watch=[(0, 0)]), "are not after layer 0"),
        (dict(values=torch.zeros(2, 1, 2)), "values has shape"),
        (dict(values=torch.zeros(2, 4, 3)), "expected 1 or 6 prompts"),
        (dict(values=torch.full((1, 1, 3), torch.nan)), "values"),
        (dict(logits=False), "heads have to be watched"),
        (dict(logits=False, watch=WATCH, vocabulary=True), "there is no top token"),
        (dict(memory=10), "memory = 10 bytes is too little"),
    ],
)
def test_bad_input(bridge, run, axes, change, said):
    given = dict(values=torch.zeros(1, 1, 3)) | change
    points = given.pop("values")
    unchecked = inspect.unwrap(steering.steer)  # or its annotations would refuse some of it first
    with torch.no_grad(), pytest.raises(CompanionError, match=said):
        unchecked(bridge, run, axes, points, **given)


def test_bad_components(svd):
    with pytest.raises(CompanionError, match="each once"):
        steering.component_axes(svd, [(0, 0, 0), (0, 0, 0)])
    with pytest.raises(CompanionError, match="component 99 is out of range"):
        steering.component_axes(svd, [(0, 0, 99)])
