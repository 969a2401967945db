"""Links from the words of the glossary: the first use of each on a page leads to its definition.

A Sphinx extension. It works on pages as they are read, after sentences made at run time have taken
their places, and so covers those too. Titles, captions, code, mathematics and text that is a link
already are left alone, and so is everything on the glossary's own page.

Configuration: `glossary_page`, the page with the glossary; `glossary_by_hand`, words that also mean
something else and are linked only where somebody wrote the role `term`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

LEFT_ALONE = (
    nodes.title, nodes.subtitle, nodes.caption, nodes.rubric, nodes.term, nodes.literal,
    nodes.literal_block, nodes.doctest_block, nodes.math, nodes.math_block, nodes.raw,
    nodes.comment, nodes.reference, nodes.citation, nodes.image, addnodes.pending_xref,
    addnodes.desc_signature, addnodes.index, addnodes.download_reference, addnodes.start_of_file,
)  # fmt: skip


class Glossary:
    """The words of a glossary: which of them are one entry, and where the entry stands.

    Args:
        entries: for each entry its words, each with the anchor of its definition.
        by_hand: words that are not looked for.
    """

    def __init__(self, entries: Iterable[list[tuple[str, str]]], by_hand: Iterable[str] = ()):
        self.entry: dict[str, int] = {}
        self.anchor: dict[str, str] = {}
        skipped = set(by_hand)
        forms = []
        for number, words in enumerate(entries):
            for word, anchor in words:
                for form in inflected(word):
                    self.entry[_key(form)], self.anchor[_key(form)] = number, anchor
                    if word not in skipped:
                        forms.append(form)
        # The longest first: "mover head" is one word, not "mover" and something else.
        forms.sort(key=len, reverse=True)
        either = "|".join(r"\s+".join(map(_first_letter, form.split())) for form in forms)
        self.pattern = re.compile(rf"(?<![\w-])(?:{either})(?![\w-])") if forms else None

    def find(self, text: str) -> Iterator[tuple[int, int, int, str]]:
        """Yield start, end, entry and anchor of each word in a text, in order."""
        for match in self.pattern.finditer(text) if self.pattern else ():
            key = _key(match[0])
            yield match.start(), match.end(), self.entry[key], self.anchor[key]


def inflected(word: str) -> list[str]:
    """A word in the singular and in the plural.

    >>> inflected("mover head"), inflected("memory"), inflected("loss")
    (['mover head', 'mover heads'], ['memory', 'memories'], ['loss', 'losses'])
    """
    if re.search(r"[^aeiou]y$", word):
        return [word, word[:-1] + "ies"]
    return [word, word + ("es" if re.search(r"(s|x|ch|sh)$", word) else "s")]


def _key(text: str) -> str:
    return " ".join(text.split()).lower()


def _first_letter(word: str) -> str:
    """A pattern for a word that may stand at the beginning of a sentence."""
    first, rest = word[0], re.escape(word[1:])
    return f"[{first}{first.upper()}]{rest}" if first.isalpha() else re.escape(word)


class LinkTerms(SphinxPostTransform):
    """Link the first use of each word of the glossary on each page."""

    # After the outputs of cells have been chosen, before references are resolved.
    default_priority = 6

    def run(self, **kwargs: Any) -> None:
        page = self.config.glossary_page
        if page not in self.env.all_docs:
            return
        glossary = self._glossary(page)
        # A book in one file still has its pages, as nodes of their own.
        for part in [self.document, *self.document.findall(addnodes.start_of_file)]:
            name = part.get("docname", self.env.docname)
            if name != page:
                self._link(part, glossary, name, page)

    def _glossary(self, page: str) -> Glossary:
        known = getattr(self.app, "_th_glossary", None)
        if known is None:
            entries = [
                [(term.astext(), term["ids"][0]) for term in item.findall(nodes.term)]
                for block in self.env.get_doctree(page).findall(addnodes.glossary)
                for item in block.findall(nodes.definition_list_item)
            ]
            known = Glossary(entries, self.config.glossary_by_hand)
            self.app._th_glossary = known
        return known

    def _link(self, part: nodes.Element, glossary: Glossary, name: str, page: str) -> None:
        used: set[int] = set()
        for run in _texts(part, used, glossary):
            text = "".join(piece.astext() for piece in run)
            parent, done, new = run[0].parent, 0, []
            for start, end, entry, anchor in glossary.find(text):
                if entry in used:
                    continue
                used.add(entry)
                shown = nodes.inline("", text[start:end], classes=["std", "std-term"])
                link = make_refnode(self.app.builder, name, page, anchor, shown)
                link["classes"].append("glossary-term")
                new += [nodes.Text(text[done:start]), link]
                done = end
            if new:
                at = parent.index(run[0])
                parent.children[at : at + len(run)] = []
                new.append(nodes.Text(text[done:]))
                parent.insert(at, [one for one in new if one.astext()])


def _texts(node: nodes.Element, used: set[int], glossary: Glossary) -> Iterator[list[nodes.Text]]:
    """Yield the runs of text that may be linked, in order; a run is broken over source lines.

    Entries that are linked by hand are added to `used` when they are passed.
    """
    run: list[nodes.Text] = []
    for child in [*node.children, None]:
        if isinstance(child, nodes.Text):
            run.append(child)
            continue
        if run:
            yield run
            run = []
        if isinstance(child, addnodes.pending_xref) and child.get("reftype") == "term":
            used.add(glossary.entry.get(_key(child["reftarget"]), -1))
        if isinstance(child, nodes.Element) and not isinstance(child, LEFT_ALONE):
            yield from _texts(child, used, glossary)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform and its two settings."""
    app.add_config_value("glossary_page", "glossary", "env", str)
    app.add_config_value("glossary_by_hand", [], "env", list)
    app.add_post_transform(LinkTerms)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
