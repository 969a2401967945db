"""The weight kernels on whatever device their inputs are on, without waiting for it on the way.

Three looks at the same thing. On the meta device there are no values, so that a kernel which asks
for one fails outright. On the CPU every way by which a value would reach the host is counted
(`roundtrips`). On a GPU, where there is one, the results are compared with the CPU's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from roundtrips import RoundTrips
from textbook import random_weights

from th_utils.composition import (
    KINDS,
    component_scores,
    composition_scores,
    head_scores,
    readers,
    z_scores,
)
from th_utils.svd import HeadSVD, factored_svd, ov_svd, qk_svd
from th_utils.weights import AttentionWeights, Rotary, fold


def grouped(device: str = "cpu", dtype: torch.dtype = torch.float32, **how) -> AttentionWeights:
    rotary = Rotary(base=100.0, dims=4)
    small = dict(heads=6, kv_heads=3, d_model=32, d_head=8, rotary=rotary)
    return random_weights(0, dtype=dtype, **(small | how)).to(device)


def decompositions(weights: AttentionWeights) -> dict[str, torch.Tensor]:
    """Every kernel whose result is unique: singular values and products, no vectors."""
    found = {}
    for name, svd in (
        ("ov", ov_svd(weights)),
        ("qk", qk_svd(weights)),
        ("qk at 5", qk_svd(weights, offset=5)),
        ("factored", HeadSVD(*factored_svd(weights.W_O.mT, weights.W_Q))),
    ):
        found[name] = svd.S
        found[f"{name} product"] = (svd.U * svd.S[..., None, :]) @ svd.V.mT
    return found


def scores(weights: AttentionWeights, svd: HeadSVD) -> dict[str, torch.Tensor]:
    found = {}
    for kind in KINDS:
        reader = readers(weights, kind, offsets=(1, 2, 9))
        found[f"gram {kind}"] = reader @ reader.mT
        found[f"component {kind}"] = components = component_scores(svd, reader)
        found[f"head {kind}"] = head_scores(components, svd.S)
    found["whole"] = composition_scores(weights, offsets=(1, 2, 9))
    if weights.W_Q.device.type != "meta":
        found["z"] = z_scores(components[..., 2, 1])
    return found


KERNELS = {
    "checked weights": lambda w, s: w.to(w.W_Q.device),
    "factored_svd": lambda w, s: factored_svd(w.W_O.mT, w.W_Q),
    "ov_svd": lambda w, s: ov_svd(w),
    "qk_svd": lambda w, s: qk_svd(w, offset=5),
    "readers Q": lambda w, s: readers(w, "Q"),
    "readers K": lambda w, s: readers(w, "K"),
    "readers V": lambda w, s: readers(w, "V"),
    "component_scores": lambda w, s: component_scores(s, s.V),
    "head_scores": lambda w, s: head_scores(s.V.new_ones(*s.S.shape, 3, 6), s.S),
    "composition_scores": lambda w, s: composition_scores(w),
    "z_scores": lambda w, s: z_scores(s.S),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_waits_for_the_device_once_at_most(kernel, dtype):
    weights = grouped(dtype=dtype)
    svd = ov_svd(weights)
    with RoundTrips() as trips:
        KERNELS[kernel](weights, svd)
    assert trips.seen == ["aten._local_scalar_dense.default"]


def test_folding_never_waits():
    w = grouped()
    with RoundTrips() as trips:
        fold((w.W_Q, w.W_K, w.W_V, w.W_O), torch.ones(32), centre=True)
    assert not trips.seen


SPOILS = {
    "item": lambda x: x.max().item(),
    "float": lambda x: float(x.max()),
    "bool": lambda x: bool(x.max() > 0),
    "tolist": lambda x: x.tolist(),
    "tolist of one": lambda x: x.max().tolist(),
    "numpy": lambda x: x.numpy(),
    "array": lambda x: np.asarray(x),
    "cpu": lambda x: x.cpu(),
    "mask": lambda x: x[x > 0],
    "mask to write": lambda x: x.__setitem__(x > 0, torch.zeros(1)),
    "nonzero": torch.nonzero,
    "unique": torch.unique,
    "equal": lambda x: torch.equal(x, x.clone()),
    "allclose": lambda x: torch.allclose(x, x),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_waiting_would_be_noticed(spoil):
    with RoundTrips() as trips:
        SPOILS[spoil](torch.randn(9))
    assert trips.n == 1, trips.seen
    assert "tolist" not in vars(torch.Tensor)  # what was patched is as it was


def test_kernels_ask_for_no_values():
    """Shapes, dtypes and devices of all results, from tensors that have no values to ask for."""
    weights, like = grouped("meta"), grouped()
    found = decompositions(weights) | scores(weights, ov_svd(weights))
    expected = decompositions(like) | scores(like, ov_svd(like))
    for name, result in found.items():
        assert result.device.type == "meta", name
        assert result.shape == expected[name].shape and result.dtype == expected[name].dtype, name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [{}, {"d_model": 512, "d_head": 64}], ids=["small", "wide"])
def test_cuda_agrees_with_the_cpu(dtype, width):
    here = grouped(dtype=dtype, **width)
    there = here.to("cuda")
    bound = {torch.float32: 1e-5, torch.float64: 1e-11}[dtype]
    expected, found = decompositions(here), decompositions(there)
    for name, result in found.items():
        assert result.device.type == "cuda" and result.dtype == dtype, name
        largest = expected[name].abs().amax()
        assert (result.cpu() - expected[name]).abs().max() <= bound * largest, name
    # the same directions on both: single singular vectors need not agree between two libraries
    svd = ov_svd(here)
    moved = HeadSVD(*(part.to("cuda") for part in (svd.U, svd.S, svd.V)))
    expected, found = scores(here, svd), scores(there, moved)
    for name, result in found.items():
        size = expected[name].abs().amax() if name.startswith("gram") else 1
        if name == "z":
            size = 10  # standard scores divide by a deviation well below 1
        torch.testing.assert_close(
            result.cpu(), expected[name], atol=float(bound * size), rtol=0, equal_nan=True
        )
