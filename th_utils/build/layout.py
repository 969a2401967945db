"""Where the build puts what, and which chapters there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from th_utils.paths import edition_folder

DEFAULT_EDITION = "smollm2-135m-instruct-q4"
DEFAULT_SIZE = "quick"
SIZES = ("quick", "book", "full")


@dataclass(frozen=True)
class Layout:
    """The paths of one edition at one size below the project folder `root`."""

    root: Path
    edition: str = DEFAULT_EDITION
    size: str = DEFAULT_SIZE

    @property
    def folder(self) -> str:
        """The edition as a folder name: an edition may be a hub name or a local directory."""
        return edition_folder(self.edition)

    @property
    def base(self) -> Path:
        return self.root / "_build" / self.size

    @property
    def notebooks(self) -> Path:
        """Executed chapters."""
        return self.base / "notebooks" / self.folder

    @property
    def results(self) -> Path:
        return self.base / "results" / self.folder

    @property
    def figures(self) -> Path:
        return self.base / "figures" / self.folder

    @property
    def stage(self) -> Path:
        """What Jupyter Book is given."""
        return self.base / "stage" / self.folder

    @property
    def html(self) -> Path:
        return self.base / "html" / self.folder

    @property
    def pdf(self) -> Path:
        return self.base / "pdf" / f"{self.folder}.pdf"

    @property
    def logs(self) -> Path:
        return self.base / "logs" / self.folder

    @property
    def work(self) -> Path:
        """Unfinished work: nothing below is ever read as a result."""
        return self.base / ".work"

    @property
    def front_page(self) -> Path:
        return self.html / "index.html"

    @property
    def lock(self) -> Path:
        return self.root / "_build" / ".lock"

    def chapters(self) -> list[str]:
        """Names of the chapters (`03_inhibition`), in order."""
        found = (self.root / "notebooks").glob("[0-9][0-9]_*.ipynb")
        return sorted(path.stem for path in found)

    def source(self, chapter: str) -> Path:
        return self.root / "notebooks" / f"{chapter}.ipynb"

    def executed(self, chapter: str) -> Path:
        return self.notebooks / f"{chapter}.ipynb"


def find_root(start: Path | None = None) -> Path:
    """Return the project folder: the working directory if it has a Snakefile, else the checkout."""
    start = (start or Path.cwd()).resolve()
    return start if (start / "Snakefile").exists() else Path(__file__).resolve().parents[2]
