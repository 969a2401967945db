"""Put together what Jupyter Book is given: configuration, pages, executed chapters, files.

The sources lie at the same relative paths as in the repository, so that the links to Colab and to
the repository come out right.
"""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import nbformat
import yaml

from th_utils import __version__
from th_utils.build import api, kernels, notebooks, pages
from th_utils.build.layout import Layout
from th_utils.build.repository import PLACEHOLDER, address, commit
from th_utils.digest import closure_of_notebook, digest
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
    chapters = [notebooks.read(sources / f"{name}.ipynb") for name in layout.chapters()]
    files = _copy_files(layout, chapters, target / "extra")

    def links(record: dict) -> str:
        return pages.file_links(record, files, "../")

    for name, chapter in zip(layout.chapters(), chapters, strict=True):
        try:
            shown = notebooks.for_book(chapter, links)
        except CompanionError as error:
            raise CompanionError(f"chapter {name}: {error}") from error
        # The gallery shows the captions that the chapter shows.
        chapter.metadata["figures"] = [record for _, record in notebooks.marks(shown, "figure")]
        nbformat.write(shown, target / "notebooks" / f"{name}.ipynb")
    _unique(chapters)
    timed, timed_files = kernels.make_figure(root, target / "book", target / "extra")
    files |= timed_files
    galleries = [(notebooks.title(one), one.metadata["figures"]) for one in chapters]
    galleries += [("{doc}`kernels`", [timed])] if timed else []
    parts = {
        "claims": lambda: _claims(layout, chapters),
        "citation": lambda: pages.citation(_about(layout)),
        "models": lambda: pages.models(_known_models(root)),
        "figures": lambda: pages.gallery(
            galleries,
            lambda record: pages.file_links(record, files, "../", thumbnail=True),
        ),
    } | kernels.parts(root, timed, links(timed) if timed else "")
    parts |= api.parts(root)
    for page in sorted((target / "book").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (filled := pages.fill(text, parts)) != text:
            page.write_text(filled, encoding="utf-8")
    _write_config(layout, target)


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


def _unique(chapters: list) -> None:
    seen: set[str] = set()
    for chapter in chapters:
        for record in chapter.metadata["figures"]:
            if record["id"] in seen:
                raise CompanionError(f"two figures are named {record['id']}")
            seen.add(record["id"])


def _copy_files(layout: Layout, chapters: list, target: Path) -> dict[str, Path]:
    """Copy each figure's files under their permanent names; return them by name.

    A book of the committed notebooks has none: those files come from a run.
    """
    target.mkdir(parents=True)
    present = {}
    for chapter in chapters:
        for _, record in notebooks.marks(chapter, "figure"):
            for folder, kinds in ((layout.figures, FIGURE_KINDS), (layout.results, RESULT_KINDS)):
                for kind in kinds:
                    source = folder / f"{record['id']}{kind}"
                    if source.exists():
                        name = source.relative_to(layout.base).as_posix()
                        (target / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(source, target / name)
                        present[name] = source
    return present


def _claims(layout: Layout, chapters: list) -> str:
    ledger = yaml.safe_load((layout.root / "data" / "claims.yml").read_text(encoding="utf-8"))
    ledger = ledger["claims"]
    here = {}
    edition = layout.edition
    for chapter in chapters:
        for _, record in notebooks.marks(chapter, "claim"):
            here[record["id"]] = record
            edition = record.get("edition", edition)
    measured = {edition: here}
    labels = {edition: f"`{edition}`"}
    recorded = layout.root / "data" / "recorded"
    for folder in sorted(recorded.iterdir()) if recorded.is_dir() else []:
        records = pages.read_claims(folder / "claims.json")
        if records and folder.name != layout.folder:
            measured[folder.name] = {record["id"]: record for record in records}
            stale = " from earlier sources" if is_stale(layout, folder / "claims.json") else ""
            labels[folder.name] = f"`{folder.name}`, recorded{stale}"
    return pages.claims(ledger, measured, labels)


def is_stale(layout: Layout, recorded: Path) -> bool:
    """Whether recorded claims were measured by other sources than those of the chapters now."""
    for chapter, said in json.loads(recorded.read_text(encoding="utf-8"))["digests"].items():
        source = layout.source(chapter)
        if not source.exists() or digest(closure_of_notebook(source)) != said:
            return True
    return False


def _known_models(root: Path) -> list[dict]:
    known = yaml.safe_load((root / "data" / "models.yml").read_text(encoding="utf-8"))
    return [{"edition": name, **entry} for name, entry in known.items()]


def _about(layout: Layout) -> dict[str, str]:
    """What a citation of this book says; no address while there is only a placeholder for one."""
    config = yaml.safe_load((layout.root / "_config.yml").read_text(encoding="utf-8"))
    url = address(layout.root)
    return {
        "title": config["title"],
        "author": config["author"],
        "year": str(config["copyright"]),
        "version": __version__,
        "note": f"Commit {commit(layout.root)}, edition {layout.edition}, size {layout.size}",
        "url": "" if f"/{PLACEHOLDER}/" in url else url,
    }


def _write_config(layout: Layout, target: Path) -> None:
    config = yaml.safe_load((layout.root / "_config.yml").read_text(encoding="utf-8"))
    config.setdefault("repository", {})["url"] = address(layout.root)
    stamp = (
        f"Built from commit {commit(layout.root)}, version {__version__}; edition "
        f"{layout.edition}, size {layout.size}."
    )
    config.setdefault("html", {})["extra_footer"] = f"<p>{html.escape(stamp)}</p>"
    sphinx = config.setdefault("sphinx", {}).setdefault("config", {})
    sphinx["html_extra_path"] = [str(target / "extra")]
    (target / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
