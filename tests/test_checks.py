"""The questions that kernels ask of their arguments, and how a refusal reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from th_utils import checks
from th_utils.errors import CompanionError


class Syncs(TorchDispatchMode):
    """Counts how often a value travels from the device to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_what_fits_passes():
    x = torch.randn(2, 3, 4)
    checks.shape("x", x, 3)
    checks.shape("x", x, (2, None, 4))
    checks.finite(x=x, y=-x, none=x[:0])
    checks.alike(x=x, y=-x)
    checks.not_empty("x", x)
    for value in (0, 11, np.int64(3)):
        checks.index("head", value, 12)


@pytest.mark.parametrize(
    "expected, line",
    [
        (2, "x has shape (2, 3, 4), expected 2 axes: head, d_model"),
        (1, "x has shape (2, 3, 4), expected 1 axis: head, d_model"),
        ((2, None, 5), "x has shape (2, 3, 4), expected (2, any, 5): head, d_model"),
        ((2, 3), "x has shape (2, 3, 4), expected (2, 3): head, d_model"),
        ((24,), "x has shape (2, 3, 4), expected (24,): head, d_model"),
    ],
)
def test_shapes_are_named(expected, line):
    with pytest.raises(CompanionError) as refused:
        checks.shape("x", torch.zeros(2, 3, 4), expected, "head, d_model")
    assert str(refused.value) == line


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_value_that_is_not_finite_is_found(bad, dtype):
    good = torch.full((3, 5), torch.finfo(dtype).max, dtype=dtype)
    spoilt = good.clone()
    spoilt[1, 2] = bad
    checks.finite(good=good, lowest=-good)
    with pytest.raises(CompanionError, match=r"spoilt contains NaN .* 1 of 15, shape \(3, 5\)"):
        checks.finite(good=good, spoilt=spoilt)
    with pytest.raises(CompanionError, match=r"spoilt contains NaN.*shape \(5, 3\)"):
        checks.finite(spoilt=spoilt.mT)


def test_one_wait_for_any_number_of_tensors():
    x = torch.randn(4)
    with Syncs() as syncs:
        checks.finite(a=x, b=x, c=x.double())
    assert syncs.count == 1
    with Syncs() as syncs:
        checks.shape("x", x, (4,))
        checks.alike(a=x, b=x)
        checks.not_empty("x", x)
        checks.finite(a=torch.empty(3, device="meta"))
    assert syncs.count == 0


def test_devices_and_dtypes_are_named():
    x = torch.zeros(2)
    with pytest.raises(CompanionError, match=r"a of shape \(2,\) is on cpu and b .* is on meta"):
        checks.alike(a=x, b=torch.zeros(2, device="meta"))
    with pytest.raises(CompanionError, match="a .* is torch.float32 and c .* is torch.float16"):
        checks.alike(a=x, b=x, c=x.half())
    for other in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(CompanionError, match=f"b .* is {other}, expected a floating"):
            checks.alike(a=x, b=x.to(other))


@pytest.mark.parametrize("value", [-1, 12, 3.0, True, "3", None])
def test_what_is_out_of_range_is_named(value):
    with pytest.raises(CompanionError, match=f"head {value!r} is .*expected 0 to 11"):
        checks.index("head", value, 12)


def test_nothing_to_choose_from():
    with pytest.raises(CompanionError, match="layer 0 is out of range: there is none"):
        checks.index("layer", 0, 0)


@pytest.mark.parametrize("check", [checks.finite, checks.alike])
def test_what_is_no_tensor_is_named(check):
    with pytest.raises(CompanionError, match="x is of type list, expected a tensor"):
        check(x=[1.0])
    with pytest.raises(CompanionError, match="x is of type list, expected a tensor"):
        checks.shape("x", [1.0], 1)
