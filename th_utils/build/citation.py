"""How the book and each of its figures are cited: BibTeX, and plain text.

A figure is cited beside the paper, never instead of it: what can be copied holds both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from th_utils import __version__
from th_utils.build.layout import Layout
from th_utils.build.repository import address, commit, is_published, site

PAPER = "merullo2024talking"
LICENCE = "CC BY 4.0"
RANDOM = "random models"
_SPECIAL = re.compile(r"[&%$#_{}]")


@dataclass(frozen=True)
class About:
    """What a citation of this build says.

    Attributes:
        title, author, year: of the book, as in `_config.yml`.
        version: of the package.
        commit: that the site was built from.
        edition, size: what was computed.
        repository: its address.
        site: the address at which this version of the book is published.
        paper: the BibTeX entry of the paper; empty where the bibliography has none.
        draft: whether this build is no published version, and its address therefore none yet.
    """

    title: str
    author: str
    year: str
    version: str
    commit: str
    edition: str
    size: str
    repository: str
    site: str
    paper: str
    draft: bool

    @property
    def head(self) -> str:
        """The commit without a word on local changes."""
        return self.commit.split()[0]

    def source(self, path: str) -> str:
        """The address of a file of the repository, at the commit of this build."""
        return f"{self.repository}/blob/{self.head}/{path}"


def about(layout: Layout) -> About:
    """What a citation of the book of `layout` says."""
    root = layout.root
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return About(
        title=config["title"],
        author=config["author"],
        year=str(config["copyright"]),
        version=__version__,
        commit=commit(root),
        edition=layout.edition,
        size=layout.size,
        repository=address(root),
        site=f"{site(root)}/v{__version__}",
        paper=entry(root / "book" / "references.bib", PAPER),
        draft=not is_published(root, __version__),
    )


def entry(bibliography: Path, key: str) -> str:
    """One BibTeX entry of a file, as it is written there; empty where there is none."""
    text = bibliography.read_text(encoding="utf-8") if bibliography.exists() else ""
    found = re.search(rf"^@\w+{{{re.escape(key)},.*?^}}$", text, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def of_book(said: About) -> str:
    """The BibTeX entry of the companion."""
    made = f"Commit {said.commit}, edition {said.edition}, size {said.size}"
    return _bibtex("software", "talkingheadscompanion", _fields(said, said.title, made, said.site))


def of_figure(said: About, figure: Mapping[str, Any]) -> str:
    """BibTeX for one figure, and for the paper beside it.

    `figure` has an `id`, an `address` (of its anchor), the `editions` that it shows, and their
    `sizes` where these are known.
    """
    title = f"Figure {figure['id']}, in: {said.title}"
    fields = _fields(said, title, _made(said, figure), figure["address"])
    own = _bibtex("misc", f"talkingheads:{figure['id']}", fields)
    return "\n\n".join(filter(None, [own, said.paper]))


def in_words(said: About, figure: Mapping[str, Any]) -> str:
    """A citation of one figure in plain text, and of the paper beside it."""
    text = (
        f"{_sentence(said.author)} ({said.year}). Figure {figure['id']}. In: {said.title}, "
        f"version {said.version}. {_made(said, figure)}. {LICENCE}. {figure['address']}"
    )
    return "\n\n".join(filter(None, [text, _words_of_paper(said.paper)]))


def _made(said: About, figure: Mapping[str, Any]) -> str:
    """What it takes to compute a figure again: all its editions, each at its size."""
    names, sizes = figure["editions"], figure["sizes"]
    models = [RANDOM if name == RANDOM else f"edition {name}" for name in names]
    if len(sizes) == len(names) and len(set(sizes.values())) == 1:
        return f"Commit {said.commit}, {' and '.join(models)}, size {sizes[names[0]]}"
    parts = [
        f"{model} at size {sizes[name]}" if name in sizes else model
        for name, model in zip(names, models, strict=True)
    ]
    return f"Commit {said.commit}, {' and '.join(parts)}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fields(said: About, title: str, made: str, url: str) -> dict[str, str]:
    return {
        "title": f"{{{_latex(title)}}}",
        # A second pair of braces: not a first and a last name, but one holder.
        "author": f"{{{{{_latex(said.author)}}}}}",
        "year": f"{{{said.year}}}",
        "version": f"{{{said.version}}}",
        "note": f"{{{_latex(made)}}}",
        "url": f"{{{url}}}",
    }


def _bibtex(kind: str, key: str, fields: Mapping[str, str]) -> str:
    body = ",\n".join(f"  {name:<7} = {value}" for name, value in fields.items())
    return f"@{kind}{{{key},\n{body}\n}}"


def _latex(text: str) -> str:
    """`text` with what LaTeX would take for a command escaped.

    >>> _latex("my_model, 4% & more")
    'my\\\\_model, 4\\\\% \\\\& more'
    """
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text)


def _words_of_paper(bibtex: str) -> str:
    """The paper's entry as a reference in words."""
    if not bibtex:
        return ""
    said = dict(re.findall(r"^  (\w+) *= *\{(.*?)\},?$", bibtex, re.MULTILINE))
    names = [" ".join(reversed(name.split(", "))) for name in said["author"].split(" and ")]
    authors = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
    pages = said["pages"].replace("--", "\u2013")
    return (
        f"{authors} ({said['year']}). {said['title']}. {said['booktitle']}, {said['volume']}, "
        f"{pages}."
    )
