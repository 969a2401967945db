"""What a reader relies on: the shape of a chapter, numbered equations, one spelling."""

from __future__ import annotations

import re

import pytest

from th_utils.build import notebooks
from th_utils.build.layout import Layout, find_root

LAYOUT = Layout(find_root())
BOOK = LAYOUT.root / "book"
LAST = "## What this showed, and what it did not"
DISPLAYED = re.compile(
    r"^\$\$[ \t]*\n.*?\n\$\$[ \t]*(?:\((eq-[\w-]+)\))?[ \t]*$", re.DOTALL | re.MULTILINE
)

chapters = pytest.mark.parametrize("name", LAYOUT.chapters())


def prose(name: str) -> list[str]:
    """The Markdown cells of a chapter."""
    return [
        cell.source
        for cell in notebooks.read(LAYOUT.source(name)).cells
        if cell.cell_type == "markdown"
    ]


@chapters
def test_a_chapter_opens_with_its_claim(name):
    first = notebooks.read(LAYOUT.source(name)).cells[0]
    title, claim = first.source.split("\n\n")[:2]
    assert re.fullmatch(r"# \S.*", title)
    assert re.match(r"\*\*The claim\.\*\* [A-Z]", claim) and claim.endswith(".")


@chapters
def test_a_chapter_ends_with_what_it_showed_and_what_not(name):
    cells = notebooks.read(LAYOUT.source(name)).cells
    headings = [
        (number, line)
        for number, cell in enumerate(cells)
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if re.match("## ", line)
    ]
    number, heading = headings[-1]
    assert heading == LAST
    after = " ".join(cell.source for cell in cells[number:] if cell.cell_type == "markdown")
    after = after.partition(LAST)[2]
    assert len(after.split()) > 40, "a few sentences, at least"
    assert re.search(r"\b(not|nothing|no|nor|neither|only|cannot)\b", after)
    assert cells[number + 1].source.startswith(("chapter.showed()", "chapter.say(words."))
    assert cells[-1].cell_type == "code" and cells[-1].source.endswith("chapter.done()")


def displayed() -> list[tuple[str, str | None]]:
    """Page and label of every displayed equation of the book."""
    texts = {name: prose(name) for name in LAYOUT.chapters()}
    texts |= {page.name: [page.read_text(encoding="utf-8")] for page in BOOK.rglob("*.md")}
    return [
        (page, match[1])
        for page, parts in texts.items()
        for part in parts
        for match in DISPLAYED.finditer(part)
    ]


def test_equations_are_numbered_and_listed_with_their_source():
    found = displayed()
    assert len(found) >= 10
    assert not [page for page, label in found if not label], "an equation has no label"
    labels = [label for _, label in found]
    assert len(set(labels)) == len(labels)
    rows = re.findall(
        r"^\| \{eq\}`(eq-[\w-]+)` \| (.+?) \| (.+?) \| (.+?) \|$",
        (BOOK / "notation.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert sorted(label for label, *_ in rows) == sorted(labels)
    for label, _, source, function in rows:
        assert re.search("{cite|reconstruction|ours|our derivation", source), label
        assert "{py:func}" in function, label


@chapters
def test_a_caption_begins_with_its_message(name):
    """One sentence of what was found, before how to read the figure."""
    for _, record in notebooks.marks(notebooks.read(LAYOUT.source(name)), "figure"):
        message = record["message"]
        assert message.endswith(".") and not message.endswith(".."), message
        assert 5 <= len(message.split()) <= 40 and "\n" not in message, message
        assert re.search(r"\d|\b(no|none|never|all|every|one|two|three)\b", message), message


def test_the_changelog_has_the_version_and_what_is_to_come():
    from th_utils import __version__

    text = (LAYOUT.root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [re.fullmatch(r"(\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)", one) for one in headings[1:]]
    assert all(released), "a release is headed `1.2.3 (2026-01-31)`"
    newest = text.split("\n## ")[1]
    assert __version__ in [one[1] for one in released] or __version__ in newest
