"""Versions published beside one another; none changes when another comes."""

from __future__ import annotations

import re

import pytest
import yaml

from th_utils.build.layout import find_root
from th_utils.build.publish import main, place, versions

WORKFLOW = find_root() / ".github" / "workflows" / "publish.yml"


def book(folder, text):
    (folder / "_static").mkdir(parents=True)
    (folder / "index.html").write_text(text)
    (folder / "_static" / "a.css").write_text(text)
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_stays_as_it_was(tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    assert place(book(tmp_path / "1", "one"), pages, "v1.9", "T & U") == ["v1.9"]
    first = contents(pages / "v1.9")
    assert place(book(tmp_path / "2", "two"), pages, "v1.10", "T & U") == ["v1.10", "v1.9"]
    assert contents(pages / "v1.9") == first
    assert (pages / "latest" / "index.html").read_text() == "two"
    # A correction of an old version comes later and is not the newest.
    assert place(book(tmp_path / "3", "three"), pages, "v1.9.1", "T")[0] == "v1.10"
    assert (pages / "latest" / "_static" / "a.css").read_text() == "two"
    index = (pages / "index.html").read_text()
    assert re.findall(r'href="(.*?)/"', index) == ["latest", "v1.10", "v1.9.1", "v1.9"]
    assert (pages / ".nojekyll").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v1.0", "was published before, and a published version never changes"),
        ("latest", "is no version"),
        ("v1.0-rc1", "is no version"),
        ("../v2", "is no version"),
    ],
)
def test_what_is_not_published(tmp_path, capsys, name, message):
    pages = tmp_path / "pages"
    pages.mkdir()
    site = book(tmp_path / "site", "one")
    place(site, pages, "v1.0", "T")
    before = contents(pages)
    (site / "index.html").write_text("changed")
    assert main([str(site), str(pages), name]) == 1
    assert message in capsys.readouterr().err
    assert contents(pages) == before


def test_no_book(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path), "v1.0"]) == 1
    assert "there is no book" in capsys.readouterr().err
    assert versions(tmp_path) == []


def test_the_workflow_publishes_tags_and_nothing_else():
    said = yaml.safe_load(WORKFLOW.read_text())
    # YAML takes the key `on` for a truth value.
    assert said[True] == {"push": {"tags": ["v*"]}}
    assert said["concurrency"]["cancel-in-progress"] is False
    (job,) = said["jobs"].values()
    steps = " ".join(step.get("run", "") for step in job["steps"])
    order = [
        "release-check", "make test-fast", "make book", "pytest -n 2 tests/test_book.py",
        "-m chromium", "th_utils.build.publish", "git push",
    ]  # fmt: skip
    places = [steps.index(command) for command in order]
    assert places == sorted(places), "checked, built, looked at, placed, pushed"
    assert "--force" not in steps
    # The browser sees what was built, not a book made for the tests.
    (look,) = [step["run"] for step in job["steps"] if "-m chromium" in step.get("run", "")]
    assert look.startswith('export TH_SITE="_build/book/html/$EDITION"')
    used = {step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step}
    assert used == {"actions/checkout", "actions/setup-python"}


def test_every_target_that_the_workflow_calls_exists():
    targets = set(re.findall(r"^([a-z-]+):", (find_root() / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"\bmake ([a-z-]+)", WORKFLOW.read_text()))
    assert called and called <= targets
