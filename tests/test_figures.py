"""The look of figures on fixed data, bytes that repeat, and names that do not lie on each other."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.transforms import Bbox

from th_utils import figures
from th_utils.figures import PALETTE, SINGLE, WIDE, ink, label_points, new_figure, render

BASELINE = {
    "baseline_dir": "baseline",
    "style": figures.STYLE,
    "tolerance": 6,
    "savefig_kwargs": {"dpi": 100},
}
ROOT = Path(__file__).resolve().parents[1]


def luminance(colour):
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def example(size=(SINGLE, 2.8)):
    """One curve and one crowd of named points for each role."""
    with figures.style():
        figure, (left, right) = new_figure(size, rows=1, columns=2)
        x = np.linspace(0, 3, 30)
        for i, (role, colour) in enumerate(PALETTE.items()):
            left.plot(x, np.cos(x) - 0.3 * i, color=colour)
            left.annotate(role, (3, np.cos(3) - 0.3 * i), ha="right", color=ink(colour))
        left.set_title("A message")
        left.set_xlabel("radians")
        left.set_ylabel("cosine − offset")
        px, py = np.random.default_rng(3).normal(size=(2, 9))
        right.plot(px, py, "o", color=PALETTE["other"])
        label_points(right, px, py, [f"head {i}" for i in range(9)], colour=PALETTE["mover"])
        right.set_title("Another")
    return figure


@pytest.mark.mpl_image_compare(filename="style.png", **BASELINE)
def test_style():
    return example((WIDE, 2.8))


@pytest.mark.mpl_image_compare(filename="crowd.png", **BASELINE)
def test_crowd_of_names():
    figure, axes = new_figure((SINGLE, 2.4))
    x, y = [0.0, 0.02, 0.04, 0.0, 0.03, 1.0], [0.0, 0.05, 0.0, 0.1, 0.1, 1.0]
    axes.plot(x, y, "o", color=PALETTE["inhibition"])
    label_points(axes, x, y, [f"point {i}" for i in range(6)], colour=PALETTE["inhibition"])
    return figure


def test_two_saves_are_the_same_bytes(tmp_path):
    """Of two figures made alike, and of one figure saved again."""
    figure = example()
    saves = [figures.save(figure, tmp_path / "a"), figures.save(example(), tmp_path / "b")]
    first, other = ([path.read_bytes() for path in files.values()] for files in saves)
    again = [path.read_bytes() for path in figures.save(figure, tmp_path / "a").values()]
    assert first == other == again
    for content, signature in zip(first, (b"<?xml", b"%PDF-", b"\x89PNG"), strict=True):
        assert content.startswith(signature)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.pdf", "a.png", "a.svg", "b.pdf", "b.png", "b.svg"]


SCRIPT = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import matplotlib
matplotlib.rcParams.update({"svg.hashsalt": sys.argv[2], "savefig.dpi": int(sys.argv[3])})
from test_figures import example
from th_utils.figures import KINDS, render
print(*(hashlib.sha256(render(example(), kind)).hexdigest() for kind in KINDS))
"""


def test_other_processes_and_settings_give_the_same_bytes():
    """Neither Python's hash seed nor the reader's own settings nor the date get into the files."""
    said = set()
    for seed, time in (("1", "0"), ("2", "1700000000")):
        search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": search, "SOURCE_DATE_EPOCH": time}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(ROOT / "tests"), seed, seed + "00"],
            env=env, capture_output=True, text=True, check=True,
        )  # fmt: skip
        said.add(done.stdout)
    assert len(said) == 1


def test_no_date_in_any_file_and_letters_as_outlines():
    figure = example()
    svg = render(figure, "svg")
    assert b"<dc:date>" not in svg
    assert b"/CreationDate" not in render(figure, "pdf")
    png = render(figure, "png")
    assert b"tIME" not in png and b"Software" not in png
    assert b"<text" not in svg and b"<path" in svg


def test_smallest_text_can_be_read_on_a_narrow_screen():
    """Eight pixels at 320: what the style gives a figure of one column's width."""
    figure = example()
    sizes = [
        text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()
    ]
    assert min(sizes) * 320 / (72 * SINGLE) >= 8


def test_colours_of_roles_can_be_told_apart():
    """Every pair differs in hue or in lightness, also when red and green are one (deuteranopia)."""
    # Viénot, Brettel and Mollon 1999: LMS with the missing cone set from the others.
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    blind = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    seen = {}
    for role, colour in PALETTE.items():
        rgb = np.array(matplotlib.colors.to_rgb(colour)) ** 2.2
        seen[role] = np.clip(np.linalg.inv(to_lms) @ blind @ to_lms @ rgb, 0, 1) ** (1 / 2.2)
    for a, b in itertools.combinations(seen, 2):
        assert np.abs(seen[a] - seen[b]).max() > 0.1, (a, b)
    assert len(set(PALETTE.values())) == len(PALETTE)


@pytest.mark.parametrize("colour", [*PALETTE.values(), "#F0E442", "white"])
def test_ink_stands_out_from_white(colour):
    assert 1.05 / (luminance(ink(colour)) + 0.05) >= 4.5


def test_ink_leaves_dark_colours_alone():
    assert ink(PALETTE["inhibition"]) == PALETTE["inhibition"].lower()


def boxes(figure, notes):
    figure.draw_without_rendering()
    return [note.get_window_extent() for note in notes]


def test_names_lie_on_nothing():
    figure, axes = new_figure((SINGLE, 3.2))
    x, y = np.random.default_rng(1).random((2, 14))
    axes.plot(x, y, "o")
    notes = label_points(axes, x, y, [f"9.{i}" for i in range(14)])
    assert [note.get_text() for note in notes] == [f"9.{i}" for i in range(14)]
    frame, found = axes.get_window_extent(), boxes(figure, notes)
    points = axes.transData.transform(np.column_stack([x, y]))
    for a, b in itertools.combinations(found, 2):
        assert not a.overlaps(b)
    for box in found:
        assert not any(box.contains(*point) for point in points)
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1


def test_a_name_gives_way_to_what_stands_beside_its_point():
    bar = Bbox([[0.5, 0], [2.5, 0.8]])
    overlaps = []
    for beside in ([], [bar]):
        figure, axes = new_figure((SINGLE, 2.0))
        axes.plot([0, 3], [0, 1], lw=0)
        (box,) = boxes(figure, label_points(axes, [0.4], [0.5], ["3.1.0"], beside=beside))
        overlaps.append(box.overlaps(bar.transformed(axes.transData)))
    assert overlaps == [True, False]


def test_a_name_far_from_its_point_is_tied_to_it():
    figure, axes = new_figure((SINGLE, 2.0))
    x = y = [0.0] * 12
    axes.plot([-1, 1], [-1, 1], lw=0)
    notes = label_points(axes, x, y, [f"name {i}" for i in range(12)])
    found = boxes(figure, notes)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(found, 2))
    lines = [child for child in axes.texts if child.arrow_patch is not None]
    assert len(lines) == len(notes) - 2, "only left and right is room for a name without a line"


def test_a_name_beside_its_point_needs_no_line():
    _, axes = new_figure()
    axes.plot([0, 1], [0, 1], "o")
    label_points(axes, [0, 1], [0, 1], ["a", "b"])
    assert [text.get_text() for text in axes.texts] == ["a", "b"]


def test_points_that_are_not_finite_get_no_name():
    _, axes = new_figure()
    axes.plot([0, 1], [0, 1], "o")
    notes = label_points(axes, [0, np.nan, 1], [0, 0.5, 1], ["a", "b", "c"], colour=["r", "g", "b"])
    assert [note.get_text() for note in notes] == ["a", "c"]
    assert notes[1].get_color() == ink("b")


def test_style_ends_with_its_block():
    matplotlib.rcParams["font.size"] = 13
    with figures.style():
        assert matplotlib.rcParams["font.size"] == 9
    assert matplotlib.rcParams["font.size"] == 13
    matplotlib.rcdefaults()
    figures.apply_style()
    assert matplotlib.rcParams["svg.hashsalt"] == "talking-heads"
    matplotlib.rcdefaults()


def test_new_figures_are_unknown_to_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    new_figure()
    assert plt.get_fignums() == before
    known = plt.figure()
    figures.close(known)
    assert plt.get_fignums() == before
