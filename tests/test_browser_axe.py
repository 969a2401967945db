"""axe-core looks at every page, in light and in dark mode, and at what opens on a page.

What it finds serious or critical is mended, or stands with its reason in axe_exceptions.yml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from test_browser import PAGES

pytestmark = pytest.mark.chromium

# Without `preload` axe does not fetch the style sheets, which a browser refuses for files.
OPTIONS = {"resultTypes": ["violations"], "preload": False}
GRAVE = ("serious", "critical")
LIST = Path(__file__).with_name("axe_exceptions.yml")
EXCEPTIONS = yaml.safe_load(LIST.read_text(encoding="utf-8"))["exceptions"]
USED: set[int] = set()


def grave(tab: Any) -> list[str]:
    """What axe finds serious or critical on an open page, without the listed exceptions."""
    found = []
    for violation in Axe().run(tab, options=OPTIONS).response["violations"]:
        if violation["impact"] not in GRAVE:
            continue
        for node in violation["nodes"]:
            where = str(node["target"])
            if not is_excepted(violation["id"], where):
                found.append(f"{violation['id']} at {where}: {node['html'][:120]}")
    return found


def is_excepted(rule: str, where: str) -> bool:
    for number, one in enumerate(EXCEPTIONS):
        if one["rule"] == rule and one["where"] in where:
            USED.add(number)
            return True
    return False


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_no_grave_problem(book_page, page, dark):
    assert grave(book_page(page, dark=dark)) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_grave_problem_on_a_telephone(book_page, dark):
    tab = book_page(PAGES[1], width=360, height=740, dark=dark)
    assert grave(tab) == []
    tab.locator("button.primary-toggle").click()
    tab.locator("#pst-primary-sidebar-modal").wait_for()
    assert grave(tab) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_grave_problem_in_the_search(book_page, dark):
    tab = book_page(PAGES[1], dark=dark)
    tab.keyboard.press("Control+k")
    tab.locator("#pst-search-dialog[open]").wait_for()
    assert grave(tab) == []


def test_a_planted_problem_is_found(book_page):
    tab = book_page(PAGES[0])
    tab.evaluate("document.querySelector('article').append(document.createElement('button'))")
    assert [one for one in grave(tab) if one.startswith("button-name")]


def test_every_exception_has_a_reason_and_is_needed(book_page):
    """Last in this file: the tests above have by now used each exception."""
    assert all(one["reason"].strip() for one in EXCEPTIONS)
    unused = [one for number, one in enumerate(EXCEPTIONS) if number not in USED]
    assert unused == []
