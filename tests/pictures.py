"""What every drawing is tested for: the picture, and texts that are large enough and apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.text
import pytest

from th_utils import figures

Drawings = Mapping[str, Callable[[], Any]]


def pictures(drawings: Drawings, apart: float = 1) -> dict[str, Callable]:
    """The tests of these drawings, for a module's globals.

    One a drawing, by name, since the plugin takes one picture of each test; and one of the texts,
    which may lie on each other by `apart` pixels across.
    """
    tests = {
        f"test_{name.replace('-', '_')}_picture": _picture(name, drawings) for name in drawings
    }

    @pytest.mark.parametrize("name", drawings)
    def test_texts(name):
        figure, found = drawn(drawings[name])
        check_sizes(found)
        check_inside(figure, found)
        check_apart(found, apart)

    return tests | {"test_texts": test_texts}


def _picture(name: str, drawings: Drawings) -> Callable:
    @pytest.mark.mpl_image_compare(
        filename=f"plot-{name}.png",
        baseline_dir="baseline",
        style=figures.STYLE,
        tolerance=2,  # one line moved is about 5
        savefig_kwargs={"dpi": 60},
    )
    def test():
        return drawings[name]()

    return test


def drawn(make: Callable[[], Any]) -> tuple[Any, list]:
    """A figure as a chapter draws it, and its texts with their boxes."""
    with figures.style():
        figure = make()
        return figure, texts(figure)


def texts(figure) -> list:
    """What is written: ticks beyond the limits and empty texts are not drawn."""
    figure.draw_without_rendering()
    found = []
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text().strip() and text.get_visible():
            box = matplotlib.text.Text.get_window_extent(text)  # without the line to a point
            if box.width > 0 and _is_drawn(text, figure):
                found.append((text, box))
    return found


def _is_drawn(text, figure) -> bool:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            if any(text in (tick.label1, tick.label2) for tick in ticks):
                if not axes.axison:
                    return False
                seen = axis._update_ticks()
                return any(
                    (text is t.label1 and t.label1.get_visible())
                    or (text is t.label2 and t.label2.get_visible())
                    for t in seen
                )
    return True


def check_sizes(found: list) -> None:
    """Texts of at least 8 points."""
    assert min(text.get_fontsize() for text, _ in found) >= 8


def check_inside(figure, found: list) -> None:
    """No text runs out of the figure."""
    page = figure.bbox
    for text, box in found:
        inside = page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1
        inside = inside and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1
        assert inside, f"{text.get_text()!r} at {box.extents} of {page.extents}"


def check_apart(found: list, width: float = 1) -> None:
    """No text lies on another by more than `width` pixels across."""
    for (one, a), (other, b) in itertools.combinations(found, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        # boxes are a little larger than what is written in them
        assert not (wide > width and high > 3), f"{one.get_text()!r} lies on {other.get_text()!r}"
