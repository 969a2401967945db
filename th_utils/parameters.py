"""The parameters of a chapter, checked before anything is loaded."""

from __future__ import annotations

from typing import Any

from th_utils.errors import CompanionError, near_matches

SIZES = ("quick", "book", "full")


def check_parameters(*, edition: Any, size: Any, seed: Any, device: Any) -> None:
    """Check what a reader can set in the parameters cell.

    Raises:
        CompanionError: a value of the wrong type or out of range, an edition that nobody knows, a
            device that this machine has not; the message says what to write instead.
    """
    for name, value, example in (
        ("edition", edition, "gpt2"),
        ("size", size, "quick"),
        ("device", device, "cpu"),
    ):
        if not isinstance(value, str) or not value:
            raise CompanionError(
                f'{name} must be text in quotes, not {_shown(value)}: for example {name} = "'
                f'{example}"'
            )
    if size not in SIZES:
        raise CompanionError(f"no size {size!r}: {near_matches(size, SIZES)}")
    check_whole_number("seed", seed, low=0, high=2**32 - 1)
    check_device(device)
    from th_utils.models import resolve

    resolve(edition)


def check_whole_number(name: str, value: Any, *, low: int, high: int) -> None:
    """Check that a parameter is a whole number in a range.

    Raises:
        CompanionError: it is not; the message says what to write instead.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise CompanionError(
            f"{name} must be a whole number, not {_shown(value)}: for example {name} = {low}"
        )
    if not low <= value <= high:
        raise CompanionError(
            f"{name} must lie between {low} and {high}, not at {value}: try {name} = {low}"
        )


def check_device(device: str) -> None:
    """Check that torch knows the device and this machine has it."""
    if device == "cpu":  # the usual case, without the seconds that importing torch takes
        return
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise CompanionError(f'no device {device!r}: use "cpu", "cuda" or "mps"') from error
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if (wanted.index or 0) >= present.get(wanted.type, 0):
        raise CompanionError(f'this machine has no device {device!r}: use device = "cpu"')


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"
