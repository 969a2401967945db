"""The one exception that is meant for a person rather than for a programmer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CompanionError(Exception):
    """Something the reader can mend, said in one line that names the remedy.

    In IPython and Jupyter only that line is shown, without a traceback: IPython asks an
    exception for `_render_traceback_` before it renders its own.

    >>> str(CompanionError("no such edition: 'gtp2';\\n  did you mean 'gpt2'?"))
    "no such edition: 'gtp2'; did you mean 'gpt2'?"
    """

    def __init__(self, message: str) -> None:
        # Messages are often composed of other libraries' messages, which may span lines.
        super().__init__(" ".join(str(message).split()))

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def near_matches(name: str, known: Iterable[str], limit: int = 3) -> str:
    """A clause that proposes what `name` may have been meant to be.

    The known names closest in spelling come first; where none is close, all are listed.

    >>> near_matches("gtp2", ["gpt2", "pythia-160m"])
    "did you mean 'gpt2'?"
    >>> near_matches("llama", ["gpt2", "pythia-160m"])
    "known are 'gpt2', 'pythia-160m'"
    """
    candidates = sorted(set(known))
    folded = {candidate.casefold(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.casefold(), folded, n=limit, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(folded[match]) for match in close) + "?"
    return "known are " + ", ".join(repr(candidate) for candidate in candidates)
