"""Which words stand in a list: texts marked by hand."""

from __future__ import annotations

import re

import pytest

from th_utils.enumerations import marks, spans

# Enumerations in brackets.
MARKED = [
    "We [buy a dog, a cat and a fox]. We still need the dog.",
    "[She had bread, butter, and jam for tea], which was good.",
    "[red, green, blue]. And then nothing.",
    "Bring a coat and a hat. It rains, and it is cold.",
    "My dear friend, I thank you very much indeed, as always.",
    "To pack:\n[1. a towel\n2. a hat\n\n3. two books]\nThat is all.",
    "[- one\n- two]",
    "Only one:\n- a towel\nand no more.",
    "[a) first\nb) second]\n\nThe end.",
    "[Step 1: dig\nStep 2: plant]\n",
    "He is a man - tall - and strong.\nShe is not.",
    "[Tom, Ann or Sue may go].",
    "I.\nOnce there was a king.",
    "[She's kind, he's old, they're new]!",
    "",
]


@pytest.mark.parametrize("marked", MARKED)
def test_spans_are_those_marked_by_hand(marked):
    text = marked.replace("[", "").replace("]", "")
    expected = re.findall(r"\[([^\]]*)\]", marked)
    assert [text[a:b] for a, b in spans(text)] == expected


@pytest.mark.parametrize(
    "text, loose, strict",
    [
        ("Then, Mary and John went away.", 1, 0),
        ("We buy a dog, a cat and a fox.", 1, 0),
        ("We buy a dog, a cat, and a fox.", 1, 1),
        ("We buy a dog, a cat, a cow and a fox.", 1, 1),
        ("red, green, blue", 1, 0),
        ("1. a\n2. b", 1, 1),
    ],
)
def test_strict_asks_for_more(text, loose, strict):
    assert (len(spans(text)), len(spans(text, strict=True))) == (loose, strict)


def test_tokens_in_an_enumeration_are_marked():
    pieces = ["It is so.", " red", "", " green and", " blue", ".", "\n", "- a", "\n- b"]
    expected = [False, False, False, False, False, False, False, True, True]
    assert marks(pieces).tolist() == expected
    pieces[1], pieces[3] = " red,", " green, and"
    assert marks(pieces).tolist() == [False, True, True, True, True, False, False, True, True]
    assert marks([]).tolist() == []
