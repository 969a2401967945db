"""What a kernel asks of its arguments before it computes: one line that names what does not fit.

Shapes, dtypes and devices are looked at without touching the data. Only `finite` reads values,
and it waits for the device once, however many tensors it is given: a kernel calls it at its door
and makes no other round trip to the host.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

from th_utils.errors import CompanionError


def shape(
    name: str, tensor: Any, expected: tuple[int | None, ...] | int, meaning: str = ""
) -> None:
    """Refuse a tensor of another shape.

    Args:
        name: what the caller knows the tensor as.
        tensor: the tensor.
        expected: the size of each axis, None where any will do; or the number of axes alone.
        meaning: names of the axes, or what else explains the expectation; ends the message.

    Raises:
        CompanionError: the shape differs, or it is no tensor at all.

    >>> shape("W_Q", torch.zeros(2, 3), (2, None))
    >>> shape("W_Q", torch.zeros(2, 3), (2, 4), "layer, head")
    Traceback (most recent call last):
    th_utils.errors.CompanionError: W_Q has shape (2, 3), expected (2, 4): layer, head
    """
    _tensor(name, tensor)
    found = tuple(tensor.shape)
    tail = f": {meaning}" if meaning else ""
    if isinstance(expected, int):
        if len(found) != expected:
            axes = "1 axis" if expected == 1 else f"{expected} axes"
            raise CompanionError(f"{name} has shape {found}, expected {axes}{tail}")
        return
    fits = len(found) == len(expected) and all(
        wanted is None or size == wanted for size, wanted in zip(found, expected, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in expected)
        comma = "," if len(expected) == 1 else ""
        raise CompanionError(f"{name} has shape {found}, expected ({sizes}{comma}){tail}")


def finite(**tensors: Any) -> None:
    """Refuse tensors that hold NaN or infinite values, with one wait for the device.

    Tensors without values (empty ones, those on the meta device) pass.

    Raises:
        CompanionError: names the first that does, its shape and how many values are not finite.

    >>> finite(S=torch.tensor([1.0, float("nan")]))
    Traceback (most recent call last):
    th_utils.errors.CompanionError: S contains NaN or infinite values: 1 of 2, shape \
(2,), expected none
    """
    for name, tensor in tensors.items():
        _tensor(name, tensor)
    valued = {
        name: tensor.detach()
        for name, tensor in tensors.items()
        if tensor.numel() and tensor.device.type != "meta" and tensor.is_floating_point()
    }
    flags: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in valued.values():
        # NaN passes through both ends, and unlike a sum they cannot overflow
        ends = torch.stack(torch.aminmax(tensor))
        flags.setdefault(tensor.device, []).append(torch.isfinite(ends).all())
    if all(bool(torch.stack(each).all()) for each in flags.values()):
        return
    for name, tensor in valued.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise CompanionError(
                f"{name} contains NaN or infinite values: {bad} of {tensor.numel()}, shape "
                f"{tuple(tensor.shape)}, expected none"
            )


def alike(**tensors: Any) -> None:
    """Refuse tensors on different devices or of different dtypes, or not of floating point.

    Raises:
        CompanionError: names the two that differ, or the one that is not of floating point.

    >>> alike(W_Q=torch.zeros(2), W_K=torch.zeros(2, dtype=torch.float64))
    Traceback (most recent call last):
    th_utils.errors.CompanionError: W_Q of shape (2,) is torch.float32 and W_K of shape (2,) is \
torch.float64, expected one dtype
    """
    first = next(iter(tensors), None)
    for name, tensor in tensors.items():
        _tensor(name, tensor)
        if not tensor.is_floating_point():
            raise CompanionError(
                f"{name} of shape {tuple(tensor.shape)} is {tensor.dtype}, expected a floating "
                "point dtype"
            )
        for what in ("device", "dtype"):
            here, there = getattr(tensors[first], what), getattr(tensor, what)
            if here != there:
                place = "on " if what == "device" else ""
                raise CompanionError(
                    f"{first} of shape {tuple(tensors[first].shape)} is {place}{here} and {name} "
                    f"of shape {tuple(tensor.shape)} is {place}{there}, expected one {what}"
                )


def index(name: str, value: Any, size: int) -> None:
    """Refuse a layer, head, position or component that is not there; none counts from the end.

    Raises:
        CompanionError: names it and the range.

    >>> index("head", 12, 12)
    Traceback (most recent call last):
    th_utils.errors.CompanionError: head 12 is out of range: expected 0 to 11
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise CompanionError(f"{name} {value!r} is not a whole number: expected 0 to {size - 1}")
    if not 0 <= value < size:
        allowed = f"expected 0 to {size - 1}" if size else "there is none"
        raise CompanionError(f"{name} {value} is out of range: {allowed}")


def not_empty(name: str, tensor: Any) -> None:
    """Refuse a tensor without entries.

    Raises:
        CompanionError: names it and its shape.

    >>> not_empty("W_Q", torch.zeros(0, 4))
    Traceback (most recent call last):
    th_utils.errors.CompanionError: W_Q of shape (0, 4) is empty: expected at least one entry \
along each axis
    """
    _tensor(name, tensor)
    if not tensor.numel():
        raise CompanionError(
            f"{name} of shape {tuple(tensor.shape)} is empty: expected at least one entry along "
            "each axis"
        )


def _tensor(name: str, value: Any) -> None:
    if not isinstance(value, torch.Tensor):
        raise CompanionError(f"{name} is of type {type(value).__name__}, expected a tensor")
