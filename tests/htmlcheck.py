"""Checks of a rendered site; each returns a list of complaints, one line each."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

# Filled in by scripts, and without content of their own.
GENERATED = {"search.html", "genindex.html"}


class Site:
    """The pages of a folder of HTML, parsed once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pages = {
            path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
            for path in sorted(folder.rglob("*.html"))
            if "_static" not in path.relative_to(folder).parts
        }
        self.ids = {
            path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in self.pages.items()
        }

    def _each(self) -> Iterator[tuple[Path, str, BeautifulSoup]]:
        for path, soup in self.pages.items():
            yield path, path.relative_to(self.folder).as_posix(), soup

    def bad_alt_texts(self) -> list[str]:
        """Images without alternative text; Sphinx puts the file's path where there is none."""
        found = []
        for _, name, soup in self._each():
            for image in soup.find_all("img"):
                alt = (image.get("alt") or "").strip()
                path_like = alt == image.get("src") or alt.lower().endswith((".png", ".svg"))
                if not alt or path_like or alt.lower().startswith("image of"):
                    found.append(f"{name}: alt text {alt!r} of {image.get('src', '')[:80]}")
        return found

    def broken_links(self) -> list[str]:
        """Links to pages, anchors and files of the site that are not there."""
        found = []
        for path, name, soup in self._each():
            for tag, key in (("a", "href"), ("link", "href"), ("img", "src"), ("script", "src")):
                for element in soup.find_all(tag):
                    link = element.get(key)
                    if link and not self._leads_somewhere(path, link):
                        found.append(f"{name}: {link}")
        return found

    def _leads_somewhere(self, page: Path, link: str) -> bool:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or link == "#":
            return True  # another site, or the work of a script
        target = page if not parts.path else (page.parent / unquote(parts.path)).resolve()
        if target.is_dir():
            target = target / "index.html"
        if not target.exists():
            return False
        return (
            not parts.fragment
            or target not in self.ids
            or (unquote(parts.fragment) in self.ids[target])
        )

    def bad_outlines(self) -> list[str]:
        """Pages without a language, a title or exactly one main heading."""
        found = []
        for path, name, soup in self._each():
            if path.name in GENERATED or soup.find("meta", attrs={"http-equiv": "Refresh"}):
                continue
            article = soup.find("article") or soup
            if (soup.html or {}).get("lang") != "en":
                found.append(f"{name}: language is not said")
            if not (soup.title and soup.title.get_text(strip=True)):
                found.append(f"{name}: no title")
            if (count := len(article.find_all("h1"))) != 1:
                found.append(f"{name}: {count} main headings")
        return found

    def literal_markup(self) -> list[str]:
        """Roles and markers that were shown instead of being carried out."""
        found = []
        for _, name, soup in self._each():
            article = copy.copy(soup.find("article") or soup)  # other tests read the page too
            for code in article.find_all(["pre", "script", "code"]):
                code.decompose()
            text = article.get_text(" ")
            for sign in ("{numref}", "{cite", "{ref}", "{doc}", ":::{", "<!-- generated"):
                if sign in text:
                    found.append(f"{name}: shows {sign}")
        return found
