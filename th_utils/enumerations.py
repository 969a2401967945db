"""Which tokens of a text stand in an enumeration, by a rule that can be said in two sentences.

A run of two or more lines that begin with a bullet, a number or a letter is one; blank lines may
stand between. So are three or more items of at most three words in a sentence, with commas between
them, the last one perhaps after "and" or "or". The paper's idea of a list in free text is not known
to us: *reconstruction*. The rule errs: it takes "Then, Mary and John" for three items, misses
items of more than three words, and lets the first and the last item take up to three words of the
sentence around them. `strict` asks of a sentence two commas and a final "and" or "or".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

_ITEM_LINE = re.compile(r"[ \t]*(?:[-*•–]|(?:Step )?\d{1,3}[.):]|[A-Za-z][.)])[ \t]+\S")
_WORD = r"(?!(?:and|or)\b)\w[\w'’-]*"
_ITEM = rf"{_WORD}(?: {_WORD}){{0,2}}"
_LAST = rf",? (?:and|or) {_ITEM}"
_SENTENCE = re.compile(rf"\b{_ITEM}(?:(?:, {_ITEM})+{_LAST}|(?:, {_ITEM}){{2,}})")
_STRICT = re.compile(rf"\b{_ITEM}(?:(?:, {_ITEM}){{2,}}{_LAST}|, {_ITEM}, (?:and|or) {_ITEM})")


def spans(text: str, *, strict: bool = False) -> list[tuple[int, int]]:
    """First and one past the last character of every enumeration.

    >>> [text[a:b] for text in ["We buy a dog, a cat and a fox."] for a, b in spans(text)]
    ['buy a dog, a cat and a fox']
    >>> spans("We buy a dog, a cat and a fox.", strict=True), spans("One, two.")
    ([], [])
    """
    found = _line_spans(text)
    found += [match.span() for match in (_STRICT if strict else _SENTENCE).finditer(text)]
    return sorted(found)


def _line_spans(text: str) -> list[tuple[int, int]]:
    """Runs of lines that begin as items do."""
    found: list[tuple[int, int]] = []
    start, run, stop = 0, 0, 0
    for line in re.finditer(r"[^\n]+", text):
        if _ITEM_LINE.match(line[0]):
            start = start if run else line.start()
            run, stop = run + 1, line.end()
        elif line[0].strip():
            if run > 1:
                found.append((start, stop))
            run = 0
    return found + ([(start, stop)] if run > 1 else [])


def marks(pieces: Sequence[str], *, strict: bool = False) -> Bool[np.ndarray, " pos"]:
    """Which tokens lie in an enumeration of the text that they make up, wholly or in part.

    >>> marks(["So:", " one", ",", " two", ",", " three", "."]).tolist()
    [False, True, True, True, True, True, False]
    """
    found = np.zeros(len(pieces), dtype=bool)
    listed = spans("".join(pieces), strict=strict)
    at = 0
    for i, piece in enumerate(pieces):
        found[i] = any(a < at + len(piece) and at < b for a, b in listed)
        at += len(piece)
    return found
