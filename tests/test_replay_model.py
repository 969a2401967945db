"""Replay on the pretrained default model, against its full forward pass."""

from __future__ import annotations

import pytest
import torch

from th_utils import engine
from th_utils.fullforward import FullForward
from th_utils.replay import Replay


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-4)


@pytest.mark.model
def test_logits_of_the_default_model_are_those_of_a_full_forward(default_bridge):
    """30 layers with grouped keys and values: heads cut out at one position, and at several."""
    fast, full = engine.of(default_bridge), FullForward(default_bridge)
    assert isinstance(fast, Replay)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, default_bridge.cfg.d_vocab, (2, 12), generator=generator)
    base, clean = fast.trace(tokens), full.trace(tokens)
    assert close(fast.logits(base.final), full.logits(clean.final))
    for layer, first, changed in ((0, 3, 9), (11, 6, 1), (fast.n_layers - 1, 11, 1)):
        z = base.z[layer][:, first : first + changed, :2]
        delta = -torch.einsum("nphe,hed->hnpd", z, fast.W_O(layer)[:2])
        found = fast.logits(fast.write(base, layer, delta, first))
        assert close(found, full.logits(full.write(clean, layer, delta, first)))
