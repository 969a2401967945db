"""Put together what Jupyter Book is given: configuration, pages, executed chapters, files.

The sources lie at the same relative paths as in the repository, so that the links to Colab and to
the repository come out right.
"""

from __future__ import annotations

import html
import shutil
from collections import Counter
from pathlib import Path

import nbformat
import yaml

from th_utils.build import (
    api,
    catalogue,
    citation,
    credit,
    explore,
    front,
    kernels,
    ledger,
    ledger_page,
    notebooks,
    pages,
    published,
    versions,
)
from th_utils.build.citation import About
from th_utils.build.graph import needs
from th_utils.build.layout import Layout
from th_utils.errors import CompanionError

FIGURE_KINDS = (".svg", ".pdf", ".png")
RESULT_KINDS = (".csv", ".json")


def stage(layout: Layout, sources: Path, target: Path) -> None:
    """Fill the new folder `target` with the book of the executed notebooks in `sources`."""
    root = layout.root
    shutil.rmtree(target, ignore_errors=True)
    (target / "notebooks").mkdir(parents=True)
    shutil.copytree(root / "book", target / "book")
    if (root / "book" / "_static").is_dir():
        # The place where Jupyter Book looks for style sheets.
        shutil.copytree(root / "book" / "_static", target / "_static")
    _write_toc(layout, target)
    said = citation.about(layout)
    extra = target / "extra"
    chapters = {name: notebooks.read(sources / f"{name}.ipynb") for name in layout.chapters()}
    timed, timed_files = kernels.make_figure(root, target / "book", extra)
    files = _copy_files(layout, chapters, extra) | timed_files
    claims, measured = ledger.claims(root), ledger.editions(layout, chapters)
    sizes = {edition.name: edition.size for edition in measured if edition.recorded}
    entries = _catalogue(layout, said, chapters, files, timed, sizes)
    lines = {entry["id"]: credit.line(entry, said, "../") for entry in entries}
    for name, chapter in chapters.items():
        try:
            shown = notebooks.for_book(chapter, lambda record: lines[record["id"]])
        except CompanionError as error:
            raise CompanionError(f"chapter {name}: {error}") from error
        nbformat.write(shown, target / "notebooks" / f"{name}.ipynb")
        chapter.metadata["figures"] = notebooks.figures(chapter)
    found = ledger.rows(claims, measured, entries)
    parts = {
        "claims": lambda: ledger_page.page(
            found, measured, said, {name[:2]: name for name in chapters}
        ),
        "citation": lambda: f"```bibtex\n{citation.of_book(said)}\n```",
        "versions": lambda: versions.addresses(said),
        "errata": lambda: versions.errata(said),
        "rerun": lambda: versions.rerun(said),
        "models": lambda: pages.models(_known_models(root)),
        "figures": lambda: catalogue.gallery(entries, lines, [claim["id"] for claim in claims]),
    } | kernels.parts(root, timed, lines[timed["id"]] if timed else "")
    parts |= api.parts(root)
    parts |= front.parts(layout, target / "book")
    parts |= explore.parts(layout, chapters.values(), target)
    for page in sorted((target / "book").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (filled := pages.fill(text, parts)) != text:
            page.write_text(filled, encoding="utf-8")
    # Beside the pages that show the same to people.
    (extra / "book").mkdir(parents=True, exist_ok=True)
    for name, content in {
        "figures.json": catalogue.as_json(entries, said),
        "claims.json": ledger.as_json(found, said),
        "claims.csv": ledger.as_csv(found, said),
    }.items():
        (extra / "book" / name).write_text(content, encoding="utf-8")
    _write_config(layout, said, target)


def _write_toc(layout: Layout, target: Path) -> None:
    """The table of contents without the chapters that this edition cannot run."""
    toc = yaml.safe_load((layout.root / "_toc.yml").read_text(encoding="utf-8"))
    here = {f"notebooks/{name}" for name in layout.chapters()}
    for part in toc.get("parts", []):
        part["chapters"] = [
            entry
            for entry in part["chapters"]
            if entry["file"] in here or not entry["file"].startswith("notebooks/")
        ]
    text = yaml.safe_dump(toc, sort_keys=False)
    (target / "_toc.yml").write_text(text, encoding="utf-8")


def _catalogue(
    layout: Layout,
    said: About,
    chapters: dict,
    files: dict[str, Path],
    timed: dict | None,
    sizes: dict[str, str],
) -> list[dict]:
    """An entry for each figure of the book, in its order."""
    listed = published.load(layout.root)
    shown = []
    for name, chapter in chapters.items():
        source, title = f"notebooks/{name}.ipynb", notebooks.title(chapter)
        random = needs(layout, name) == "nothing"
        try:
            shown += [(one, source, title, random) for one in notebooks.figures(chapter)]
        except CompanionError as error:
            raise CompanionError(f"chapter {name}: {error}") from error
    if timed:
        page = "book/kernels.md"
        shown.append((timed, page, pages.title(layout.root / page), True))
    for name, count in Counter(record["id"] for record, *_ in shown).items():
        if count > 1:
            raise CompanionError(f"two figures are named {name}")
    return [
        catalogue.entry(
            record,
            said,
            source=source,
            title=title,
            files=files,
            listed=listed,
            sizes=sizes,
            random=random,
        )
        for record, source, title, random in shown
    ]


def _copy_files(layout: Layout, chapters: dict, target: Path) -> dict[str, Path]:
    """Copy each figure's files under their permanent names; return them by path on the site.

    A book of the committed notebooks has none of the files of a run, but the pictures are in the
    notebooks.
    """
    target.mkdir(parents=True, exist_ok=True)
    present = {}
    for chapter in chapters.values():
        for name, picture in notebooks.pictures(chapter):
            for folder, kinds in ((layout.figures, FIGURE_KINDS), (layout.results, RESULT_KINDS)):
                for kind in kinds:
                    source = folder / f"{name}{kind}"
                    path = source.relative_to(layout.base).as_posix()
                    (target / path).parent.mkdir(parents=True, exist_ok=True)
                    if source.exists():
                        shutil.copy(source, target / path)
                    elif kind == ".png" and picture:
                        (target / path).write_bytes(picture)
                    else:
                        continue
                    present[path] = target / path
    return present


def _known_models(root: Path) -> list[dict]:
    known = yaml.safe_load((root / "data" / "models.yml").read_text(encoding="utf-8"))
    return [{"edition": name, **entry} for name, entry in known.items()]


def _write_config(layout: Layout, said: About, target: Path) -> None:
    config = yaml.safe_load((layout.root / "_config.yml").read_text(encoding="utf-8"))
    repository = config.setdefault("repository", {})
    repository["url"] = said.repository
    if not said.draft:  # else its chapters would open in Colab as they are on the main branch
        repository["branch"] = f"v{said.version}"
    stamp = (
        f"Built from commit {said.commit}, version {said.version}; edition {said.edition}, size "
        f"{said.size}."
    )
    config.setdefault("html", {})["extra_footer"] = f"<p>{html.escape(stamp)}</p>"
    sphinx = config.setdefault("sphinx", {}).setdefault("config", {})
    sphinx["html_extra_path"] = [str(target / "extra")]
    (target / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
