"""Counts what would make the host wait for the device, on a machine that need not have one.

Two nets, since neither catches everything. A dispatch mode sees operations: `item`, `bool`, `int`
and `float` of a tensor end in one that reads a value, and masks and `nonzero` have a size that
depends on values. `tolist`, `numpy` and `cpu` of a tensor that is on the CPU already end in no
operation at all; these are counted where they are called. Not seen is `.to("cpu")`: on the CPU it
does nothing, and cannot be told from `.to(other.device)`.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_OPERATIONS = (
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.allclose.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
)
_BY_MASK = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_METHODS = ("tolist", "numpy", "cpu")


class RoundTrips(TorchDispatchMode):
    """Within it, `seen` gathers the names of what brings a value, or a size made of one, here."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._inside = 0  # of a method that is counted as one, whatever it calls

    @property
    def n(self) -> int:
        return len(self.seen)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001
        mask = func in _BY_MASK and any(
            at is not None and at.dtype in (torch.bool, torch.uint8) for at in args[1]
        )
        if (func in _OPERATIONS or mask) and not self._inside:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        with ExitStack() as stack:
            for name in _METHODS:
                stack.enter_context(patch.object(torch.Tensor, name, self._counted(name)))
            entered = super().__enter__()
            self._patched = stack.pop_all()
        return entered

    def __exit__(self, *error):
        self._patched.close()
        return super().__exit__(*error)

    def _counted(self, name: str):
        method = getattr(torch.Tensor, name)

        def counted(tensor, *arguments, **named):
            if not self._inside:
                self.seen.append(f"Tensor.{name}")
            self._inside += 1
            try:
                return method(tensor, *arguments, **named)
            finally:
                self._inside -= 1

        return counted
