"""The order in which all pairs are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from th_utils.errors import CompanionError
from th_utils.pairs import Pairs

PAIRS = Pairs(4, 3, 5)


def table() -> torch.Tensor:
    """An entry says its own place; those without a pair are NaN."""
    at = torch.stack(torch.meshgrid(*map(torch.arange, (4, 3, 5, 4, 3)), indexing="ij"), dim=-1)
    number = (at * torch.tensor([10000, 1000, 100, 10, 1])).sum(-1).float()
    return number.masked_fill(at[..., 0] >= at[..., 3], float("nan"))


def test_every_pair_is_kept_once_and_knows_its_place():
    row = PAIRS.flatten(table())
    assert len(PAIRS) == len(row) == int((~table().isnan()).sum())
    assert len(row.unique()) == len(row) and not row.isnan().any()
    where = PAIRS.where(np.arange(len(PAIRS)))
    assert row.tolist() == (where @ [10000, 1000, 100, 10, 1]).tolist()
    assert (PAIRS.reader(np.arange(len(PAIRS))) == where[:, 3] * 3 + where[:, 4]).all()


def test_readers_lie_one_after_another():
    end = 0
    for layer, head, place in PAIRS.readers():
        assert place.start == end == PAIRS.start(layer, head)
        end = place.stop
        where = PAIRS.where(np.arange(place.start, place.stop))
        assert (where[:, 3:] == [layer, head]).all() and len(where) == PAIRS.writers(layer)
    assert end == len(PAIRS) and len(PAIRS.readers()) == 9


def test_numbers_of_writers_and_readers_go_to_their_pairs():
    where = PAIRS.where(np.arange(len(PAIRS)))
    written, read = torch.randn(4, 3, 5), torch.randn(4, 3)
    found = PAIRS.of_writers(written)
    assert torch.equal(found, written[tuple(where[:, :3].T)])
    assert torch.equal(PAIRS.of_readers(read), read[tuple(where[:, 3:].T)])
    assert PAIRS.distance().tolist() == (where[:, 3] - where[:, 0]).tolist()


def test_what_does_not_fit_is_refused():
    with pytest.raises(CompanionError, match="two layers at least"):
        Pairs(1, 3, 5)
    with pytest.raises(CompanionError, match="numbered 0 to"):
        PAIRS.where(np.array([len(PAIRS)]))
    with pytest.raises(CompanionError, match="values has shape"):
        PAIRS.of_readers(torch.zeros(3, 4))
    with pytest.raises(CompanionError, match="table has shape"):
        PAIRS.flatten(torch.zeros(4, 3, 5, 4, 2))
