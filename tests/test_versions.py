"""From an old version of the book to the newest, and from its chapters to its own sources."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from th_utils.build import citation, stage, versions
from th_utils.build.layout import Layout, find_root

LAYOUT = Layout(find_root())
SAID = replace(
    citation.about(LAYOUT), site="https://someone.github.io/it/v1.2", version="1.2", draft=False
)
NEWEST = "<https://someone.github.io/it/latest/book/errata.html>"


def test_the_newest_errata_are_reached_from_every_version():
    assert NEWEST in versions.errata(SAID) and "that of version 1.2" in versions.errata(SAID)
    draft = versions.errata(replace(SAID, draft=True))
    assert NEWEST in draft and "Once a version is published" in draft


def test_a_draft_has_no_address():
    assert "<https://someone.github.io/it/v1.2/>" in versions.addresses(SAID)
    assert "draft" not in versions.addresses(SAID)
    assert "these addresses do not lead to it" in versions.addresses(replace(SAID, draft=True))


def test_the_page_of_errata_has_the_link(site):
    """Staged and rendered, not only written."""
    from th_utils.build.repository import site as home

    page = site.pages[site.folder / "book" / "errata.html"]
    links = [link["href"] for link in page.select("article a[href]")]
    assert f"{home(LAYOUT.root)}/latest/book/errata.html" in links


def test_the_ways_to_run_a_chapter_are_in_the_readme(site):
    said = citation.about(LAYOUT)
    readme = (LAYOUT.root / "README.md").read_text(encoding="utf-8")
    (heading,) = re.findall("^## (Rerun.*)$", readme, re.MULTILINE)
    assert heading.lower().replace(" ", "-") == versions.RERUN
    page = site.pages[site.folder / "book" / "reading.html"]
    links = " ".join(link["href"] for link in page.select("article a[href]"))
    assert re.search(rf"{re.escape(said.repository)}/blob/\w+/README.md#{versions.RERUN}", links)
    front = site.pages[site.folder / "book" / "index.html"]
    assert front.select("article a[href$='reading.html#reading-rerun']")


@pytest.mark.parametrize(("draft", "branch"), [(True, "main"), (False, "v1.2")])
def test_chapters_open_in_colab_as_published(tmp_path, draft, branch):
    """Jupyter Book makes `.../blob/<branch>/notebooks/...` of it."""
    stage._write_config(LAYOUT, replace(SAID, draft=draft), tmp_path)
    config = yaml.safe_load((tmp_path / "_config.yml").read_text())
    assert config["repository"]["branch"] == branch
    assert config["repository"]["url"] == SAID.repository


def test_colab_links_of_the_rendered_book(site):
    """The branch of a draft, or the tag of what is published; the path is the repository's."""
    said = citation.about(LAYOUT)
    place = said.repository.removeprefix("https://github.com/")
    branch = "main" if said.draft else f"v{said.version}"
    for chapter in LAYOUT.chapters():
        page = site.pages[site.folder / "notebooks" / f"{chapter}.html"]
        links = [a["href"] for a in page.select("a[href*='colab.research.google.com']")]
        path = f"github/{place}/blob/{branch}/notebooks/{chapter}.ipynb"
        assert f"https://colab.research.google.com/{path}" in links
