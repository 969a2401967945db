"""A Sphinx extension: what the stock theme brings along and a page should not have.

Rules of style are in `book/_static/book.css`; here is what a style sheet cannot mend.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

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
SEARCH = "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = location.protocol !== 'file:';"


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
        # docutils lists references as a list without list items.
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to the making of pages, after the theme."""
    app.add_js_file(None, body=MODE, priority=100)
    app.add_js_file(None, body=SEARCH, priority=300)
    app.connect("html-page-context", mend, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
