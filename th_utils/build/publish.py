"""Put a built version of the book beside those published before.

Below the published address every version lies in a folder of its own, `v1.0`, and is never changed:
a citation must not lead to a page that has become another. `latest` is a copy of the newest. The
command is `python -m th_utils.build.publish SITE PAGES v1.0`.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import sys
from pathlib import Path

from th_utils.errors import CompanionError

LATEST = "latest"
_VERSION = re.compile(r"v(\d+(?:\.\d+)*)")
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: all versions</title>
</head>
<body>
<main>
<h1>{title}</h1>
<p><a href="{latest}/">The newest version</a>. To cite, use the address of a version:</p>
<ul>
{items}
</ul>
</main>
</body>
</html>
"""


def place(site: Path, pages: Path, name: str, title: str) -> list[str]:
    """Copy the book in `site` to `pages`/`name`; return the names of all versions, newest first.

    Raises:
        CompanionError: `name` is no version, was published before, or there is no book.
    """
    if not _VERSION.fullmatch(name):
        raise CompanionError(f"{name!r} is no version: a tag such as v1.0 is published")
    if not (site / "index.html").exists():
        raise CompanionError(f"there is no book in {site}: make book, then publish it")
    if (pages / name).exists():
        raise CompanionError(f"{name} was published before, and a published version never changes")
    shutil.copytree(site, pages / name)
    known = versions(pages)
    if known[0] == name:
        shutil.rmtree(pages / LATEST, ignore_errors=True)
        shutil.copytree(site, pages / LATEST)
    items = "\n".join(f'<li><a href="{one}/">{one}</a></li>' for one in known)
    text = INDEX.format(title=html.escape(title), latest=LATEST, items=items)
    (pages / "index.html").write_text(text, encoding="utf-8")
    # Else GitHub leaves out folders whose names begin with an underscore.
    (pages / ".nojekyll").touch()
    return known


def versions(pages: Path) -> list[str]:
    """The versions published in `pages`, newest first.

    Version 1.10 is newer than 1.9, and a correction of an old version is not the newest.
    """
    found = [path.name for path in pages.iterdir() if _VERSION.fullmatch(path.name)]
    return sorted(found, key=lambda name: [int(part) for part in name[1:].split(".")], reverse=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the built book, the folder with what is published, and the tag."""
    parser = argparse.ArgumentParser(prog="python -m th_utils.build.publish", description=__doc__)
    parser.add_argument("site", type=Path, help="the built book: a folder of HTML")
    parser.add_argument("pages", type=Path, help="what is published: a checkout of its branch")
    parser.add_argument("version", help="the tag, such as v1.0")
    parser.add_argument("--title", default="Talking Heads, recomputed")
    options = parser.parse_args(arguments)
    try:
        known = place(options.site, options.pages, options.version, options.title)
    except CompanionError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.version} is placed; published are {', '.join(known)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
