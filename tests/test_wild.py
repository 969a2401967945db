"""A component on text: the same numbers as the tested kernels of the last position, and planted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from th_utils import models, wild
from th_utils.components import random_directions
from th_utils.errors import CompanionError
from th_utils.patching import direct_query, head_outputs
from th_utils.runs import clean_run
from th_utils.svd import ov_svd
from th_utils.weights import from_bridge

SENDER, READER = (1, 2), (2, 1)
TEXTS, LENGTH = 11, 14


@dataclass(frozen=True)
class UpTo:
    """Texts as prompts that end at one position."""

    tokens: torch.Tensor
    positions: dict[str, torch.Tensor]

    @property
    def answers(self):
        return self.tokens[:, :2]

    @property
    def right(self):
        return self.tokens[:, 0]

    def __len__(self) -> int:
        return len(self.tokens)

    def batches(self, size: int):
        return [self]


@pytest.fixture(scope="module")
def bridge(tiny_model):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(40, (TEXTS, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def parts(bridge):
    svd = ov_svd(from_bridge(bridge))
    return svd.V[SENDER][:, 1], random_directions(svd, SENDER, 2, seed=0)


@pytest.fixture(scope="module")
def seen(bridge, tokens, parts):
    return wild.observe(bridge, tokens, SENDER, READER, *parts)


@pytest.mark.parametrize("at", [1, 6, LENGTH - 1])
def test_each_position_is_as_the_last_position_of_a_prompt(bridge, tokens, parts, seen, at):
    direction, controls = parts
    end = torch.full((TEXTS,), at)
    run = clean_run(bridge, UpTo(tokens, {"end": end}))
    output = head_outputs(bridge, run, *SENDER)
    coordinate = output @ direction
    torch.testing.assert_close(seen.coordinate[:, at], coordinate, atol=1e-5, rtol=1e-4)
    weight, looked = run.pattern["end"][SENDER[0], :, SENDER[1]].max(-1)
    torch.testing.assert_close(seen.weight[:, at], weight, atol=1e-5, rtol=1e-4)
    assert torch.equal(seen.looked[:, at], looked)
    removed = [coordinate[:, None] * direction]
    removed += [coordinate.abs()[:, None] * control for control in controls]
    after = direct_query(bridge, run, *READER, -torch.stack(removed, dim=1))
    clean = run.pattern["end"][READER[0], :, READER[1]]
    rows = torch.arange(TEXTS)
    rise = after[rows, :, looked] - clean[rows, looked][:, None]
    torch.testing.assert_close(seen.reader[:, at], clean[rows, looked], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.rise[:, at], rise[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.random[:, :, at], rise[:, 1:].mT, atol=1e-5, rtol=1e-4)
    mentions = (tokens == tokens[rows, looked][:, None]) & (torch.arange(LENGTH) <= at)
    both = ((after[:, 0] - clean) * mentions).sum(-1)
    torch.testing.assert_close(seen.rise_mentions[:, at], both, atol=1e-5, rtol=1e-4)
    assert rise.abs().max() > 1e-4


def test_texts_do_not_see_each_other(bridge, tokens, parts, seen):
    assert len(tokens) > wild.BATCH, "more than one batch"
    alone = wild.observe(bridge, tokens[9:10], SENDER, READER, *parts)
    torch.testing.assert_close(alone.coordinate[0], seen.coordinate[9], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone.random[:, 0], seen.random[:, 9], atol=1e-5, rtol=1e-4)


def test_no_controls(bridge, tokens, parts):
    found = wild.observe(bridge, tokens[:2], SENDER, READER, parts[0], parts[1][:0])
    assert found.random.shape == (0, 2, LENGTH)


def test_a_reader_that_cannot_read_is_refused(bridge, tokens, parts):
    with pytest.raises(CompanionError, match="is not in a layer after"):
        wild.observe(bridge, tokens, READER, SENDER, *parts)


def test_said_before_and_repetition():
    tokens = torch.tensor([[5, 6, 5, 6, 5, 7]])
    assert wild.said_before(tokens).int().tolist() == [[0, 0, 1, 1, 1, 0]]
    looked = torch.tensor([[0, 0, 2, 1, 3, 4]])
    assert wild.repetition(tokens, looked).int().tolist() == [[0, 0, 1, 0, 1, 1]]


def test_most_active():
    activity = np.array([[0.1, 5.0, 0.2, 3.0], [0.0, 4.0, 0.3, 0.5]])
    assert wild.most_active(activity, 3 / 8).astype(int).tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]
    assert wild.most_active(activity, 0.001).sum() == 1
    both = wild.most_active(np.stack([activity, activity[::-1]]), 3 / 8)
    assert both.sum((1, 2)).tolist() == [3, 3] and both[1, 1, 3]


def test_lift_of_planted_activity():
    """Flagged in a tenth of all positions and in half of the most active ones: five times."""
    rng = np.random.default_rng(0)
    flag = np.zeros((20, 100), dtype=bool)
    flag[:, :10] = True
    activity = rng.random((20, 100))
    activity[:, 5:15] += 10
    found = wild.lift(activity, flag, seed=0, share=0.1)
    assert found.value == pytest.approx(5.0) and found.low <= found.value <= found.high
    share = wild.mean_among(activity, flag, seed=0, share=0.1)
    assert share.value == pytest.approx(0.5)
    none = wild.lift(activity, np.zeros_like(flag), seed=0)
    assert tuple(none) == (0, 0, 0)


def test_interval_is_over_texts():
    """Texts that are wholly flagged or not: the interval is that of a few texts, not positions."""
    activity = np.random.default_rng(0).random((10, 200))
    flag = np.zeros((10, 200), dtype=bool)
    flag[:5] = True
    found = wild.mean_among(activity, flag, seed=0, share=0.5)
    assert found.high - found.low > 0.4
    shuffled = np.random.default_rng(1).permuted(flag.ravel()).reshape(10, 200)
    narrow = wild.mean_among(activity, shuffled, seed=0, share=0.5)
    assert narrow.high - narrow.low < 0.12


def test_mean_among_chooses_positions_anew_in_each_resample():
    """One text is the more active throughout: the most active half is it, or the other alone."""
    activity = np.array([[9.0, 8.0, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0]])
    values = np.array([[1.0, 2.0, 3.0, 6.0], [40.0, 40.0, 40.0, 40.0]])
    found = wild.mean_among(activity, values, seed=0, share=0.5)
    assert tuple(found) == (3.0, 1.5, 40.0)
    rest = wild.mean_among(activity, values, seed=0, share=0.5, above=0.25)
    assert rest.value == 4.5 and rest.high == 40
    assert wild.mean_among(activity, values, seed=0, share=0.5, above=0.5).value == 0


def test_between():
    activity = np.arange(200.0).reshape(2, 100)
    parts = [wild.between(activity, *ends) for ends in ((1.0, 0.5), (0.5, 0.1), (0.1, 0.0))]
    assert [int(part.sum()) for part in parts] == [100, 80, 20]
    assert (sum(part.astype(int) for part in parts) == 1).all()
    assert activity[parts[1]].min() == 100 and activity[parts[1]].max() == 179
