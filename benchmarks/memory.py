"""How much memory a call takes beyond what was there before it, at its highest point."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def extra(function: Callable[[], Any], device: str = "cpu") -> tuple[Any, int | None]:
    """Call `function`; return its result and the bytes it took at most; None where unknown.

    On a GPU, what torch allocated there. On the CPU, resident memory by the kernel's own high-water
    mark, which only Linux lets a process reset; freed memory is given back first, so that nothing
    taken before counts as there.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = function()
        torch.cuda.synchronize()
        return result, torch.cuda.max_memory_allocated() - before
    _give_back()
    try:
        REFERENCES.write_text("5")  # resets the mark
    except OSError:
        return function(), None
    before = _status("VmRSS")
    result = function()
    peak = _status("VmHWM")
    return result, peak - before if peak is not None and before is not None else None


def _status(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _give_back() -> None:
    """Return what the C library keeps for later to the system."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # another C library


def total() -> int | None:
    """Bytes of memory in this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
