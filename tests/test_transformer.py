"""The plain transformer, against Hugging Face's own forward pass of the same weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from th_utils.errors import CompanionError
from th_utils.replay import Replay
from th_utils.transformer import gelu_tanh, random_transformer, rotated
from th_utils.weights import Rotary

FAMILIES = ("gpt2", "neox", "llama")


def test_gelu_has_the_gradient_of_torchs():
    x = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gelu_tanh, (x,))
    with torch.no_grad():
        expected = functional.gelu(x, approximate="tanh")
        assert torch.allclose(gelu_tanh(x), expected, atol=1e-14)


@pytest.mark.parametrize("dims", [4, 8])
def test_rotation_is_that_of_the_weight_kernels(dims):
    """Two rotated vectors meet as the QK form with their offset says."""
    model = random_transformer("llama", d_model=16, heads=2)
    rotary = Rotary(base=100.0, dims=dims)
    model = type(model)(**{**vars(model), "rotary": rotary})
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 9, 1, 8, generator=generator)
    at = torch.arange(9)
    turned = rotated(model, q, at)[:, 0] @ rotated(model, k, at)[:, 0].T
    for i in range(9):
        for j in range(i + 1):
            expected = q[i, 0] @ rotary.rotation(i - j, 8) @ k[j, 0]
            assert float(turned[i, j]) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_float64_and_float32_are_the_same_model(family):
    tokens = torch.arange(6)[None]
    single, double = (Replay(random_transformer(family, dtype=d)) for d in _DTYPES)
    found, expected = (m.logits(m.trace(tokens).final) for m in (single, double))
    assert expected.dtype == torch.float64
    assert torch.allclose(found.double(), expected, atol=1e-5)


_DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_position_sees_nothing_after_it(family):
    model = Replay(random_transformer(family))
    tokens = torch.arange(10)[None]
    changed = tokens.clone()
    changed[0, 7:] = 40
    before, after = model.trace(tokens), model.trace(changed)
    assert torch.equal(before.resid[:, :, :7], after.resid[:, :, :7])
    assert not torch.allclose(before.final, after.final)


@pytest.mark.parametrize(
    "how, said",
    [
        ({"family": "mamba"}, "family 'mamba' is unknown"),
        ({"family": "gpt2", "kv_heads": 1}, "kv_heads = 1 does not fit 2 heads of a gpt2 model"),
        ({"family": "llama", "heads": 4, "kv_heads": 3}, "kv_heads = 3 does not fit 4 heads"),
    ],
)
def test_shapes_that_no_family_has(how, said):
    with pytest.raises(CompanionError, match=said):
        random_transformer(**how)
