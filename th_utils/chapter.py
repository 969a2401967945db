"""What a chapter's notebook uses: its parameters, the model, and the ways to show something.

What is shown carries a mark in its output's metadata, under "talking_heads": the book is put
together from these marks. Outputs hold no time, no path and no warning, so that the same
parameters give the same outputs.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from th_utils import claims, figures, results
from th_utils.display import show, silence
from th_utils.errors import CompanionError
from th_utils.memory import remember
from th_utils.parameters import check_parameters
from th_utils.paths import atomic_write, checkout_root, edition_folder, output_dir

if TYPE_CHECKING:
    from th_utils.roles import Roles

T = TypeVar("T")

MARK = "talking_heads"


class Chapter:
    """One chapter, on one edition, at one size.

    Args:
        number: the chapter's number, two digits as text.
        edition: name of the model, see `th_utils.models`.
        size: "quick", "book" or "full", how much is measured.
        seed: of everything random, 0 or more.
        device: where the model runs, such as "cpu" or "cuda".
        random: whether the chapter's models are random, so that nothing in it depends on the
            edition; its results then say "random" where others have the weights' checksum.

    Making it checks the parameters and loads nothing.

    Raises:
        CompanionError: a parameter cannot be used; the message says what to write instead.
    """

    def __init__(
        self,
        number: str,
        *,
        edition: str,
        size: str = "quick",
        seed: int = 0,
        device: str = "cpu",
        random: bool = False,
    ) -> None:
        if not isinstance(number, str) or len(number) != 2 or not number.isdecimal():
            raise CompanionError(
                f'the number of a chapter is two digits in quotes, such as "03", not {number!r}'
            )
        check_parameters(edition=edition, size=size, seed=seed, device=device)
        self.number, self.edition, self.size = number, edition, size
        self.seed, self.device = seed, device
        self.random = random
        self._recorded: dict[str, dict[str, Any]] = {}
        silence()
        figures.apply_style()

    def __repr__(self) -> str:
        return (
            f"Chapter({self.number!r}, edition={self.edition!r}, size={self.size!r}, "
            f"seed={self.seed}, device={self.device!r})"
        )

    # What it works on

    @functools.cached_property
    def can_run(self) -> bool:
        """Whether the edition has a forward pass here; not so for attention weights alone."""
        from th_utils import models

        return models.can_run(self.edition)

    @functools.cached_property
    def bridge(self) -> Any:
        """The model as a TransformerBridge, loaded when first asked for.

        Raises:
            CompanionError: the edition has no forward pass here, or cannot be loaded.
        """
        from th_utils import models

        if not self.can_run:
            raise CompanionError(
                f"of {self.edition} only the attention weights are here, and this needs a forward "
                f'pass: set edition = "{models.DEFAULT}", or put the whole model in place'
            )
        return models.load(self.edition, device=self.device)

    @functools.cached_property
    def weights(self) -> Any:
        """The folded attention weights, `th_utils.weights.AttentionWeights`."""
        from th_utils import models

        return models.attention_weights(self.edition)

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the model's weights, or "random"."""
        if self.random:
            return "random"
        from th_utils import models

        return models.checksum(self.edition)

    @functools.cached_property
    def roles(self) -> Roles:
        """The heads of each role: measured, or published where the model cannot be run here.

        A measurement is kept in the cache and shared by all chapters; it is taken again when the
        weights or the sources that it depends on change. It does not depend on the chapter's seed:
        chapters with different seeds speak of the same heads.

        Raises:
            CompanionError: the model can neither be run nor has published roles.
        """
        from th_utils import digest, models, roles

        if not self.can_run:
            name = models.resolve(self.edition).name
            if not models.editions().get(name, {}).get("published_roles"):
                raise CompanionError(
                    f"{self.edition} has no forward pass here and no published roles: put the "
                    "whole model in place"
                )
            return roles.published(name)
        sources = digest.digest(digest.closure_of_module("th_utils.roles"))
        key = ["roles", self.checksum, sources, {"seed": 0}, self.device.partition(":")[0]]
        text = remember(key, lambda: roles.find(self.bridge, seed=0).to_json())
        return roles.Roles.from_json(text)

    def n(self, *, quick: T, book: T, full: T) -> T:
        """The one that goes with the chapter's size: `chapter.n(quick=32, book=256, full=1024)`."""
        return {"quick": quick, "book": book, "full": full}[self.size]

    @property
    def provenance(self) -> results.Provenance:
        """Where this chapter's results come from."""
        parameters = {name: getattr(self, name) for name in ("edition", "size", "seed", "device")}
        return results.gather(self.edition, self.checksum, parameters, self._digest)

    @functools.cached_property
    def _digest(self) -> str | None:
        """Digest of what the chapter depends on; None where its notebook is not in a checkout."""
        from th_utils import digest

        root = checkout_root()
        found = sorted((root / "notebooks").glob(f"{self.number}_*.ipynb")) if root else []
        return digest.digest(digest.closure_of_notebook(found[0])) if found else None

    # What it shows

    def say(self, text: str) -> None:
        """Show a paragraph of Markdown; the book understands MyST roles in it too."""
        show({"text/markdown": text}, text, {})

    def table(self, id: str, table: Any) -> dict[str, Path]:
        """Save a table and show nothing, such as one that the book's readers explore by hand.

        Args:
            id: permanent name, lower case with hyphens.
            table: the numbers, see `th_utils.results.as_results`; recorded ones keep their
                provenance.

        Returns:
            the files by kind, see `th_utils.results.save_table`.
        """
        provenance = getattr(table, "provenance", None) or self.provenance
        folder = output_dir() / "results" / edition_folder(self.edition)
        return results.save_table(table, results.check_name(id), provenance, folder)

    def figure(
        self,
        id: str,
        table: Any,
        draw: Callable[[results.Results], Any],
        *,
        message: str,
        alt: str,
    ) -> None:
        """Save a table, draw a figure from the saved file, save it and show it.

        Args:
            id: permanent name, lower case with hyphens.
            table: the numbers, see `th_utils.results.as_results`.
            draw: makes a matplotlib figure of `Results`; it sees what the file says, no more.
            message: what the figure shows, in one sentence with what was measured; the caption
                begins with it. How to read the figure is in the cell's metadata.
            alt: the same for who cannot see the figure, and longer.
        """
        base = output_dir()
        tables = self.table(id, table)
        saved = results.read_table(tables["json"])
        with figures.style():
            drawn = draw(saved)
        files = figures.save(drawn, base / "figures" / edition_folder(self.edition) / id)
        figures.close(drawn)
        width, height = (round(inches * 100) for inches in drawn.get_size_inches())
        record = {
            "id": id,
            "edition": saved.provenance.edition,
            "message": message,
            "alt": alt,
            "files": sorted(
                path.relative_to(base).as_posix() for path in [*files.values(), *tables.values()]
            ),
        }
        png = base64.b64encode(files["png"].read_bytes()).decode("ascii")
        show(
            {"image/png": png, "text/plain": f"<figure {id}>"},
            f"figure {id}: {files['png']}",
            {"image/png": {"width": width, "height": height}, MARK: {"figure": record}},
        )

    def claim(
        self,
        id: str,
        value: float | int,
        low: float | int | None = None,
        high: float | int | None = None,
        note: str | None = None,
    ) -> None:
        """Judge a claim of the ledger by a measured value, record and show the verdict.

        Args:
            id: of the claim, in `data/claims.yml`.
            value: the claim's statistic, measured.
            low, high: ends of its interval, where it has one.
            note: a sentence that belongs to the number.

        Raises:
            CompanionError: there is no such claim, or another chapter tests it.
        """
        claim = claims.find_claim(id)
        if claim.chapter != self.number:
            raise CompanionError(f"claim {id!r} belongs to chapter {claim.chapter}")
        # Judged as recorded: the verdict must not contradict the number printed beside it.
        numbers = [None if x is None else results.rounded(float(x)) for x in (value, low, high)]
        said = claims.verdict(claim, *numbers)
        record = dict(zip(("value", "low", "high"), numbers, strict=True)) | {
            "id": id,
            "edition": results.public(self.edition),
            "size": self.size,
            "verdict": said,
            "note": note,
        }
        self._recorded[id] = record
        self._save_claims()
        text = claims.render(claim, record)
        show({"text/markdown": text}, text, {MARK: {"claim": record}})

    def showed(self) -> None:
        """Say what this run found: the verdicts on the chapter's claims."""
        self.say(claims.summary(self._recorded.values()))

    def done(self) -> None:
        """Close the chapter: say at which size it ran, and which of its claims it left open."""
        open_claims = [
            claim.id
            for claim in claims.load_claims().values()
            if claim.chapter == self.number and claim.id not in self._recorded
        ]
        text = (
            f"This chapter ran at size `{self.size}` on edition "
            f"`{results.public(self.edition)}`, "
            f"with seed {self.seed}."
        )
        if open_claims:
            names = ", ".join(f"`{id}`" for id in open_claims)
            text += f" Not measured on this edition: {names}."
        show({"text/markdown": text}, text, {MARK: {"done": {"open": open_claims}}})

    def _save_claims(self) -> None:
        """Write what this run of the chapter has recorded so far."""
        content = {
            "chapter": self.number,
            "claims": list(self._recorded.values()),
            "provenance": vars(self.provenance),
            "tolerance": results.TOLERANCE,
        }
        folder = output_dir() / "results" / edition_folder(self.edition)
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        atomic_write(folder / f"claims-{self.number}.json", text + "\n")
