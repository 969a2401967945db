"""Runs of lists against whole passes, activation by activation."""

from __future__ import annotations

import pytest
import torch

from th_utils import models
from th_utils.errors import CompanionError
from th_utils.list_trees import list_run
from th_utils.runs import clean_run
from th_utils.steering import component_axes, steer
from th_utils.svd import ov_svd
from th_utils.tasks import lists
from th_utils.weights import from_bridge

WORDS = ["ring", "book", "ball", "bone", "kiss", "snack"]


@pytest.fixture(scope="module", params=["tiny_gpt2", "tiny_neox", "tiny_llama"])
def bridge(request):
    return models.load(request.getfixturevalue(request.param))


@pytest.fixture(scope="module", params=[(2, "list"), (4, "shuffled")], ids=["two", "four"])
def runs(bridge, request):
    length, order = request.param
    prompts = lists.prompts(bridge.tokenizer, 3, length, words=WORDS, order=order, seed=2)
    assert len(set(prompts.positions["end"].tolist())) > 1, "padded, or half is not tested"
    return list_run(bridge, prompts), clean_run(bridge, prompts)


@pytest.mark.parametrize(
    "name", ["resid", "query", "z", "final", "final_scale", "logits", "correct"]
)
def test_the_end_is_that_of_whole_passes(runs, name):
    found, expected = (getattr(run, name) for run in runs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["keys", "values"])
def test_so_is_what_replay_continues_from(runs, name):
    found, expected = (getattr(run, name) for run in runs)
    assert found.shape == expected.shape
    for i, end in enumerate(runs[0].prompts.positions["end"].tolist()):
        here = slice(end + 1)
        torch.testing.assert_close(found[:, i, here], expected[:, i, here], atol=1e-4, rtol=1e-4)


def test_so_is_where_the_end_looks(runs):
    found, expected = (run.pattern["end"] for run in runs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_steering_continues_from_it_as_from_a_whole_pass(bridge, runs):
    axes = component_axes(ov_svd(from_bridge(bridge)), [(0, 1, 0), (1, 2, 1)])
    points = torch.tensor([[[2.0, -1.0]], [[0.0, 3.0]]])
    found, expected = (steer(bridge, run, axes, points, watch=[(2, 3)]) for run in runs)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.patterns[2, 3], expected.patterns[2, 3], atol=1e-5, rtol=0)


def test_parts_of_lists_are_refused(bridge):
    prompts = lists.prompts(bridge.tokenizer, 2, 3, words=WORDS)
    with pytest.raises(CompanionError, match="5 prompts are not lists of 3 items"):
        list_run(bridge, prompts[:5])
