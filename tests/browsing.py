"""The rendered book in a real browser that reaches nothing but the book."""

from __future__ import annotations

import mimetypes
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from th_utils.build.browser import find

# No server listens there: what is asked of this address comes from the book's folder.
SERVED = "http://localhost:8080/"


def executable() -> str:
    """Path of the browser. Without one a test is skipped, but where CI is set it fails."""
    found = find()
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium or Chrome is installed")
    return found


class Reader:
    """Opens pages of the book in `folder`, and keeps in `wrong` what must not have happened."""

    def __init__(self, browser: Any, folder: Path):
        self.browser, self.folder = browser, folder
        self.wrong: list[str] = []
        self.contexts: list[Any] = []

    def open(
        self,
        page: str,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        script: bool = True,
        served: bool = False,
        permissions: tuple[str, ...] = (),
    ) -> Any:
        """Return a loaded page of the book in a fresh profile, as a playwright `Page`.

        Args:
            page: path in the book, `notebooks/03_components.html#fig-03-panels`.
            width, height: of the window, in pixels.
            dark: what the reader's system asks for.
            script: False switches scripts off.
            served: by a server, rather than from the disk as by a double click.
            permissions: granted ones, such as `clipboard-read`.
        """
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            reduced_motion="reduce",
            permissions=list(permissions),
        )
        self.contexts.append(context)
        context.route(re.compile("^https?:"), self._answer)
        if script:  # without scripts, those that a page asks for early are not fetched
            context.on("requestfailed", lambda request: self._complain("not loaded", request.url))
        tab = context.new_page()
        tab.on("pageerror", lambda error: self._complain("exception", str(error)))
        tab.on("console", self._listen)
        tab.goto(f"{SERVED if served else self.folder.as_uri() + '/'}{page}", wait_until="load")
        tab.wait_for_timeout(50)  # what scripts do when the page is there
        return tab

    def close(self) -> None:
        for context in self.contexts:
            context.close()

    def _complain(self, what: str, text: str) -> None:
        self.wrong.append(f"{what}: {text}")

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self._complain(f"console {message.type}", message.text)

    def _answer(self, route: Any) -> None:
        """Answer from the folder; whatever is not in the book would leave the machine."""
        url = route.request.url
        if not url.startswith(SERVED):
            self._complain("request leaves the machine", url)
            route.abort()
            return
        path = self.folder / unquote(urlsplit(url).path).lstrip("/")
        if not path.is_file():
            self._complain("not in the book", url)
            route.fulfill(status=404)
            return
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        route.fulfill(body=path.read_bytes(), content_type=kind)
