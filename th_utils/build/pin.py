"""The version that the chapters' setup cells install: written in for a release, then taken out.

On the main branch a setup cell installs what is newest there. In a published version it has to
install that very version: else a chapter opened later would run other code than its page shows.
"""

from __future__ import annotations

import re

from th_utils.build import notebooks
from th_utils.build.layout import Layout
from th_utils.build.repository import address
from th_utils.errors import CompanionError
from th_utils.paths import atomic_write


def pinned(text: str, home: str, version: str | None) -> str:
    """`text` with what it installs from the repository `home` fixed to a version's tag, or to none.

    >>> pinned('%pip install "it @ git+https://a.b/it"', "https://a.b/it", "1.2.0")
    '%pip install "it @ git+https://a.b/it@v1.2.0"'
    >>> pinned('%pip install "it @ git+https://a.b/it@v1.2.0"', "https://a.b/it", None)
    '%pip install "it @ git+https://a.b/it"'
    """
    tag = f"@v{version}" if version else ""
    return _installed(home).sub(f"git+{home}{tag}", text)


def pin(layout: Layout, version: str | None) -> list[str]:
    """Pin the setup cell of every chapter to `version`, or unpin it; return the chapters changed.

    Nothing else in a notebook's file changes.

    Raises:
        CompanionError: a setup cell installs from another address; no file is changed then.
    """
    changed, home = {}, address(layout.root)
    for chapter in layout.chapters():
        if not _installed(home).search(_setup(layout, chapter)):
            raise CompanionError(f"{chapter}: its setup cell does not install from git+{home}")
        text = layout.source(chapter).read_text(encoding="utf-8")
        if (new := pinned(text, home, version)) != text:
            changed[chapter] = new
    for chapter, new in changed.items():
        atomic_write(layout.source(chapter), new)
    return list(changed)


def unpinned(layout: Layout, version: str) -> list[str]:
    """The chapters whose setup cells do not install exactly `version`."""
    home = address(layout.root)
    return [
        chapter
        for chapter in layout.chapters()
        if _installed(home).findall(_setup(layout, chapter)) != [f"git+{home}@v{version}"]
    ]


def _installed(home: str) -> re.Pattern[str]:
    """What pip is given, also as it stands in a notebook's file, before an escaped quote."""
    return re.compile(rf'git\+{re.escape(home)}(?:@[^\s"\\]+)?(?=[\s"\\]|$)')


def _setup(layout: Layout, chapter: str) -> str:
    cells = notebooks.read(layout.source(chapter)).cells
    return "\n".join(cell.source for cell in cells if "setup" in notebooks.tags(cell))
