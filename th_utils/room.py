"""How much memory work on a model takes, and how much there is, before anything is loaded.

The estimates are rough and on the careful side: they are made to refuse what would end in a killed
process, not to predict a peak.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from th_utils.errors import CompanionError

FLOAT = 4  # bytes: everything is done in fp32
LIBRARIES = 0.8e9  # bytes of Python with torch, transformers and TransformerLens
# Folding copies the weights; where it may work without copies (`th_utils.bridge`), less.
FOLDING, THRIFTY_FOLDING = 3.5, 1.6
TOKENS = 32 * 24  # in the largest batch whose logits over the vocabulary are held at once
LOGITS = 5  # copies of them on the way


@dataclass(frozen=True)
class Size:
    """What a model's memory depends on."""

    parameters: int
    layers: int
    heads: int
    kv_heads: int
    d_model: int
    d_head: int
    vocabulary: int = 0


def forward_need(size: Size, *, thrifty: bool) -> int:
    """Bytes to load a model as a bridge and run the task's prompts through it."""
    # Tied embeddings come apart when the final norm is folded into one of them.
    weights = FLOAT * (size.parameters + size.vocabulary * size.d_model)
    logits = FLOAT * TOKENS * size.vocabulary * LOGITS
    return int(LIBRARIES + weights * (THRIFTY_FOLDING if thrifty else FOLDING) + logits)


def weights_need(size: Size) -> int:
    """Bytes to read the attention weights and score every component with every reader."""
    heads = size.layers * size.heads
    matrix = size.d_model * size.d_head
    held = matrix * (2 * heads + 2 * size.layers * size.kv_heads)  # the four matrices
    decomposed = 2 * heads * matrix  # both sides of every component
    readers = 3 * heads * matrix  # one kind of reader at a time, and what it is made of
    scores = 4 * heads**2 * size.d_head  # of three kinds, and one on the way
    return int(LIBRARIES + FLOAT * (held + decomposed + readers + scores))


def available(device: str) -> int:
    """Bytes that are free for a process on a device now.

    On the CPU a limit of the container counts as well, where there is one.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return min([psutil.virtual_memory().available, *container_rest()])


def container_rest(folder: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What a control group leaves of its limit, as a list of one; empty where none is set."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            numbers = [int((folder / name).read_text()) for name in (limit, usage)]
        except (OSError, ValueError):  # "max" is no number: no limit
            continue
        return [max(numbers[0] - numbers[1], 0)]
    return []


def choose_device(wanted: str, need: int) -> str:
    """The device to work on; "auto" is the first GPU if it has room for `need` bytes, else the CPU.

    Raises:
        CompanionError: no such device on this machine.
    """
    from th_utils.parameters import check_device

    if wanted != "auto":
        check_device(wanted)
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() and available("cuda") >= need else "cpu"


def check_room(what: str, device: str, need: int, remedy: str) -> None:
    """Refuse work for which there is no room.

    Raises:
        CompanionError: saying how much is needed and how much there is.
    """
    free = available(device)
    if free < need:
        raise CompanionError(
            f"{what} needs about {gigabytes(need)} of memory on {device} and {gigabytes(free)} are "
            f"free: {remedy}"
        )


def gigabytes(number: int | float) -> str:
    """
    >>> gigabytes(2.25e9), gigabytes(26e9)
    ('2.2 GB', '26 GB')
    """
    return f"{number / 1e9:.1f} GB" if number < 9.95e9 else f"{number / 1e9:.0f} GB"
