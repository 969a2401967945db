"""The picture on the front page: from which tables, what it says, and that it fits the chapter."""

from __future__ import annotations

import shutil

import pytest

from th_utils import figures
from th_utils.build import front, notebooks
from th_utils.build.layout import DEFAULT_EDITION, Layout, find_root
from th_utils.plots.finding import finding
from th_utils.prose import finding as words
from th_utils.results import Results, read_table

LAYOUT = Layout(find_root(), size="committed")


def example(best=0):
    """Two heads of four components; the first component of the first head does most."""
    scores = [0.05, 0.06, 0.05, 0.07]
    scores[best] = 0.2
    panels = {
        "head": ["2.1"] * 4 + ["1.0"] * 4,
        "component": [0, 1, 2, 3] * 2,
        "inhibition": [0.5, 0.03, 0.0, -0.01, 0.02, 0.01, 0.0, 0.0],
        "composition": [*scores, 0.04, 0.05, 0.06, 0.07],
        "picked": [True, True, False, False] * 2,
    }
    removal = {
        "removed": ["nothing", "2.1.0, 2.1.1", "all of these", "random others (5 draws)"],
        "control": [False, False, False, True],
        "inhibition mean": [0.45, 0.2, 0.15, 0.44],
        "inhibition low": [0.4, 0.15, 0.1, 0.39],
        "inhibition high": [0.5, 0.25, 0.2, 0.49],
    }
    return Results(panels, {"mover": "3.2", "random_level": 0.04}), Results(removal)


@pytest.mark.mpl_image_compare(
    baseline_dir="baseline", filename="plot-finding.png", style=figures.STYLE, tolerance=6,
    savefig_kwargs={"dpi": 100},
)  # fmt: skip
def test_picture():
    return finding(*example())


def test_the_message_follows_from_the_numbers():
    for best, said in (
        (
            0,
            "The weights single out component 2.1.0, and without it the mover's preference for the "
            "right name falls by 0.50; without any other of the head's 4 components, by at most "
            "0.03.",
        ),
        (
            3,
            "The weights single out component 2.1.3, but the mover's preference for the right name "
            "falls most without another: by 0.50 without component 2.1.0, by -0.01 without "
            "component 2.1.3.",
        ),
    ):
        found = words.leading(*example(best))
        text = words.caption(found, "x")
        assert words.message(found) == said and text.startswith(f"**{said}** 1: ")
        assert "0.15 instead of 0.45" in text and "it is 0.44" in text
        assert ("same one" in words.alt(found)) == (best == 0)
    assert found.n_removed == 4 and found.head == "2.1"


def test_tables_of_the_run_come_first(tmp_path):
    layout = Layout(tmp_path)
    assert front.tables(layout) == [] and front.parts(layout, tmp_path)["finding"]() == ""
    shutil.copytree(LAYOUT.root / front.KEPT, tmp_path / front.KEPT)
    assert all(path.is_relative_to(tmp_path / front.KEPT) for path in front.tables(layout))
    layout.results.mkdir(parents=True)
    for name in front.TABLES:
        shutil.copy(tmp_path / front.KEPT / f"{name}.json", layout.results)
    assert [path.parent for path in front.tables(layout)] == [layout.results] * 2


def test_kept_tables_are_those_of_the_default_edition(tmp_path):
    for edition in ("gpt2", DEFAULT_EDITION):
        layout = Layout(tmp_path, edition)
        shutil.copytree(LAYOUT.root / front.KEPT, layout.results)
        front.keep(layout)
        assert (tmp_path / front.KEPT).exists() == (edition == DEFAULT_EDITION)


def test_kept_tables_are_those_of_the_committed_chapter():
    panels, removal = (
        read_table(LAYOUT.root / front.KEPT / f"{name}.json") for name in front.TABLES
    )
    assert panels.provenance.edition == DEFAULT_EDITION
    (chapter,) = [name for name in LAYOUT.chapters() if name.startswith("03")]
    committed = notebooks.read(LAYOUT.source(chapter))
    claims = {mark["id"]: mark["value"] for _, mark in notebooks.marks(committed, "claim")}
    found = words.leading(panels, removal)
    share = 1 - found.without[0] / found.intact[0]
    assert share == pytest.approx(claims["removal-disinhibits"], abs=1e-5), "run `make refresh`"


def test_the_front_page_shows_it(site):
    page = site.pages[site.folder / "book" / "index.html"]
    (image,) = [one for one in page.select("article img") if "front" in one["src"]]
    assert "component" in image["alt"]
    assert page.select("article figcaption a[href*='fig-03-panels']")
