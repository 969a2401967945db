"""A Sphinx extension: what the stock theme brings along and a page should not have.

Rules of style are in `book/_static/book.css`; here is what a style sheet cannot mend.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image, UnidentifiedImageError
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

# Code cells made executable in the page, which this book does not offer: two scripts that clash
# with themselves, and the address of a third elsewhere.
UNWANTED = ("thebe", "THEBE")
# The mode that the reader chose or else the system's, before the page is drawn. (The theme's own
# scripts do it later, and complain where nothing was chosen.)
MODE = """((root) => {
  root.mode = localStorage.getItem('mode') || 'auto';
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  root.theme = root.mode !== 'auto' ? root.mode : dark ? 'dark' : 'light';
})(document.documentElement.dataset);"""
# The lines of text below each result are fetched, which a browser refuses for a file on the disk.
# Otherwise a result's place is looked for by its name as a selector, in which the dots of a
# module's name mean something else.
SEARCH = """DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== 'file:';
document.addEventListener('DOMContentLoaded', () => {
  if (typeof Search === 'undefined') return;
  const text = Search.htmlToText;
  Search.htmlToText = (page, place) => text(page, place && '#' + CSS.escape(place.slice(1)));
});"""
# The theme opens a telephone's navigation by the first button of its kind, which is in a header
# that this book does not show.
BUTTONS = """document.addEventListener('readystatechange', () => {
  document.querySelectorAll('#pst-header .sidebar-toggle').forEach((button) => button.remove());
});"""
IMAGE = re.compile(r"(?P<link><a\b[^>]*>\s*)?(?P<image><img\b[^>]*>)(?(link)\s*</a>)")
PIXELS = re.compile(r'\s*style="width: ([0-9.]+)px; height: ([0-9.]+)px;"')
WIDTH = re.compile(r'\s*\bwidth="([0-9]+)(?:px)?"')
SOURCE = re.compile(r'\bsrc="([^"]+)"')
# Pictures have twice the pixels that they are shown with, and from this width on letters that one
# cannot read where the picture shrinks to a telephone's width.
WIDE = 1200
FRAME = (
    '<span class="wide-picture" tabindex="0" role="group"'
    ' aria-label="Wide picture, scrolls sideways on a narrow screen">{}</span>'
)


class NamedFigures(SphinxTransform):
    """The permanent name of every figure in the index, where the search looks for it too."""

    default_priority = 850

    def apply(self, **options: Any) -> None:
        for figure in list(self.document.findall(nodes.figure)):
            names = [name for name in figure["ids"] if name.startswith("fig-")]
            entries = [("single", name, name, "", None) for name in names]
            if entries:
                index = addnodes.index(entries=entries)
                figure.parent.insert(figure.parent.index(figure), index)


def mend(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Mend one page before it is written."""
    # Without scripts nothing else says which colours there are.
    context["default_mode"] = "light"
    if "script_files" in context:
        context["script_files"] = list(filter(is_wanted, unique(context["script_files"])))
        context["css_files"] = list(filter(is_wanted, unique(context["css_files"])))
    if "body" in context:

        def size_of(address: str) -> tuple[int, int] | None:
            return size(source(app, pagename, address))

        # docutils lists references with a role that has gone out of use.
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = IMAGE.sub(lambda found: picture(found, size_of), body)


def is_wanted(asset: Any) -> bool:
    """Whether a script or style sheet of a page stays."""
    said = f"{asset.filename} {asset.attributes.get('body', '')}"
    return not any(word in said for word in UNWANTED)


def unique(assets: list[Any]) -> list[Any]:
    """The assets in order, without a second copy of any: extensions add theirs more than once."""
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for asset in assets:
        key = (asset.filename, *sorted(asset.attributes.items()))
        if key not in seen:
            seen.add(key)
            kept.append(asset)
    return kept


def picture(found: re.Match[str], size_of: Callable[[str], tuple[int, int] | None]) -> str:
    """An image with its size; a wide one, with the link around it, in a frame that can scroll.

    >>> picture(IMAGE.match('<a href="b"><img src="a.png"></a>'), lambda source: (840, 600))
    '<a href="b"><img width="840" height="600" loading="lazy" src="a.png"></a>'
    >>> picture(IMAGE.match('<a><img src="a.png"></a>'), lambda source: (1400, 600))[:47]
    '<span class="wide-picture" tabindex="0" role="g'
    """
    address = SOURCE.search(found["image"])
    natural = size_of(address[1]) if address else None
    mended = found[0].replace(found["image"], image(found["image"], size_of))
    return FRAME.format(mended) if natural and natural[0] >= WIDE else mended


def image(tag: str, size_of: Callable[[str], tuple[int, int] | None]) -> str:
    """Give an `<img>` its width and height, so that nothing moves, and have it loaded when seen.

    >>> image('<img alt="" src="a.png">', lambda source: (4, 3))
    '<img width="4" height="3" loading="lazy" alt="" src="a.png">'
    >>> image('<img src="a.png" width="8">', lambda source: (4, 3))
    '<img width="8" height="6" loading="lazy" src="a.png">'
    """
    said = PIXELS.search(tag)
    tag = PIXELS.sub("", tag)
    wanted = (round(float(said[1])), round(float(said[2]))) if said else None
    if wanted is None and "height=" not in tag and (address := SOURCE.search(tag)):
        wanted = size_of(address[1])
        if wanted and (width := WIDTH.search(tag)):
            wanted = (int(width[1]), round(int(width[1]) * wanted[1] / wanted[0]))
            tag = WIDTH.sub("", tag)
    added = f' width="{wanted[0]}" height="{wanted[1]}"' if wanted else ""
    if "loading=" not in tag:
        added += ' loading="lazy"'
    return f"<img{added}{tag[4:]}"


def source(app: Sphinx, pagename: str, address: str) -> Path | None:
    """The file behind an image's address on a page; None where there is none."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(pagename), address))
    made = {f"_images/{name}": key for key, name in app.builder.images.items()}
    if path in made:
        return Path(app.srcdir, made[path])
    for folder in app.config.html_extra_path:
        if (file := Path(app.confdir, folder, path)).is_file():
            return file
    return next(filter(Path.is_file, [Path(app.srcdir, path)]), None)


def size(file: Path | None) -> tuple[int, int] | None:
    """Width and height of a picture in pixels; None for what has none, such as a drawing."""
    try:
        return Image.open(file).size if file else None
    except UnidentifiedImageError:
        return None


def allow_processes(app: Sphinx) -> None:
    """Let pages be read and written in several processes.

    These extensions do not say whether they may be. What they do for all pages together they do in
    the first process, before pages are read or after.
    """
    for name in ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex", "sphinx_external_toc"):
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True
            app.extensions[name].parallel_write_safe = True


def spread(_app: Any, _environment: Any, names: list[str]) -> None:
    """Deal pages out, for processes take neighbours: else one would get the whole reference.

    >>> names = ["a1", "a2", "a3", "b1", "b2", "b3", "c1"]
    >>> spread(None, None, names)
    >>> names
    ['a1', 'b1', 'c1', 'a2', 'b2', 'a3', 'b3']
    """
    if any(name.startswith("book/api/") for name in names):
        import th_utils.bridge  # noqa: F401  # what the reference needs, once for all processes
    names[:] = [name for first in range(3) for name in names[first::3]]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to the making of pages, after the theme."""
    app.connect("builder-inited", allow_processes)
    app.connect("env-before-read-docs", spread)
    app.add_transform(NamedFigures)
    app.add_js_file(None, body=MODE, priority=100)
    app.add_js_file(None, body=BUTTONS, priority=100)
    app.add_js_file(None, body=SEARCH, priority=300)
    app.connect("html-page-context", mend, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
