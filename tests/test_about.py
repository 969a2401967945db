"""What the project says of itself: address, version, holder, how to cite; each written once."""

from __future__ import annotations

import json
import re
import tomllib
from urllib.parse import urlsplit

import pytest
import yaml

from th_utils import __version__
from th_utils.build.layout import find_root
from th_utils.build.release import problems
from th_utils.build.repository import address, other_addresses

ROOT = find_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
HOLDER = PROJECT["authors"][0]["name"]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "data/README.md")


def test_the_address_is_the_same_everywhere():
    """It is written in pyproject.toml; where a reader needs it in full, it must be that one."""
    assert list(other_addresses(ROOT)) == []


@pytest.mark.parametrize(
    "text",
    [
        "clone https://github.com/somebody/talking-heads-companion",
        "https://colab.research.google.com/github/somebody/talking-heads-companion/blob/main/x",
        "git@github.com:somebody/talking-heads-companion.git",
    ],
)
def test_another_address_is_found(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    assert list(other_addresses(tmp_path)) == []
    (tmp_path / "README.md").write_text(f"Please {text}.\n")
    (found,) = other_addresses(tmp_path)
    assert found.startswith("README.md names somebody/")
    assert found in problems(tmp_path)


def test_the_version_is_written_once():
    assert "version" in PROJECT["dynamic"]
    assert str(CITATION.get("version", __version__)) == __version__
    for name in ("README.md", "CITATION.cff", "_config.yml"):
        text = (ROOT / name).read_text()
        assert not re.search(rf"\b{re.escape(__version__)}\b", text), name


def test_the_holder_is_the_same_everywhere():
    assert CONFIG["author"] == HOLDER
    assert [author["name"] for author in CITATION["authors"]] == [HOLDER]
    notice = f"Copyright (c) {CONFIG['copyright']} {HOLDER}\n"
    for name in ("LICENSE", "LICENSE-TEXT"):
        assert notice in (ROOT / name).read_text(), name


def test_the_paper_is_cited_beside_the_companion():
    preferred = CITATION["preferred-citation"]
    assert preferred["title"] == CITATION["title"] and "beside" in preferred["notes"]
    assert preferred["authors"] == CITATION["authors"]
    assert str(preferred["year"]) == CONFIG["copyright"]
    assert preferred["repository-code"] == CITATION["repository-code"]
    assert CITATION["title"] == CONFIG["title"]
    assert CITATION["repository-code"] == address(ROOT)
    (paper,) = CITATION["references"]
    bibliography = (ROOT / "book" / "references.bib").read_text()
    entry = bibliography.partition("@inproceedings{merullo2024talking,")[2].partition("\n}")[0]
    assert paper["title"] in entry and f"{{{paper['start']}--{paper['end']}}}" in entry
    assert all(author["family-names"] in entry for author in paper["authors"])
    # What the README and the page "How to cite" offer to copy is that entry, without the address.
    for name in ("README.md", "book/cite.md"):
        shown = (ROOT / name).read_text().partition("@inproceedings{merullo2024talking,")[2]
        assert shown.partition("\n}")[0] == entry.partition(",\n  url")[0], name


def test_zenodo_says_what_the_citation_file_says():
    """Zenodo reads the one file, GitHub the other; the version it takes from the tag."""
    said = json.loads((ROOT / ".zenodo.json").read_text())
    assert said["title"] == CITATION["title"] and said["keywords"] == CITATION["keywords"]
    assert [one["name"] for one in said["creators"]] == [HOLDER]
    assert " ".join(CITATION["abstract"].split()) in said["description"]
    assert "version" not in said and "doi" not in said and said["upload_type"] == "software"
    (paper,) = CITATION["references"]
    number = paper["url"].rpartition("/")[2]
    (related,) = said["related_identifiers"]
    assert related["identifier"] == f"arXiv:{number}"
    assert related["relation"] == "isSupplementTo"


def test_no_doi_before_there_is_one():
    for name in ("README.md", "CITATION.cff", "book/cite.md"):
        assert not re.search(r"\b10\.\d{4,}/", (ROOT / name).read_text()), name
    assert "doi" not in CITATION and "identifiers" not in CITATION


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_link_to_files_that_exist(name):
    path = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not urlsplit(link).scheme:
            assert (path.parent / link).exists(), link


def test_the_colab_link_opens_a_chapter():
    (chapter,) = re.findall(r"/blob/main/(notebooks/\w+\.ipynb)", (ROOT / "README.md").read_text())
    assert (ROOT / chapter).exists()
    assert CONFIG["repository"]["branch"] == "main"


def test_targets_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in DOCUMENTS:
        called = set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / name).read_text(), re.MULTILINE))
        assert called <= targets, name
