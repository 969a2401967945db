"""Mathematics of the book as MathML."""

from __future__ import annotations

import pytest
from math_core import LatexError

from th_utils.build.mathematics import CHARACTERS, displayed, mathml, write_font


def test_a_product_keeps_its_parts():
    assert mathml(r"W_{OV} = W_V W_O").startswith("<math>")
    assert "<mi>head</mi>" in mathml(r"d_\mathrm{head}")
    assert mathml("x", display=True).startswith('<math display="block">')


@pytest.mark.parametrize("tex", [r"\undefined x", r"\frac{a", "x_{"])
def test_what_is_not_known_is_an_error(tex):
    with pytest.raises(LatexError):
        mathml(tex)


def test_lines_are_aligned():
    assert mathml(displayed(r"a &= b \\ c &= d"), display=True).count("<mtr>") == 2


@pytest.mark.parametrize("name", ["align", "equation", "gather"])
def test_only_sphinx_numbers_equations(name):
    tex = displayed(rf"\begin{{{name}}}a = b\end{{{name}}}")
    assert "(1)" not in mathml(tex, display=True)
    assert "(1)" in mathml(tex.replace("*", ""), display=True)  # else the test tests nothing


def test_the_font_is_small_and_the_same_each_time(tmp_path):
    from fontTools.ttLib import TTFont

    for name in ("one.woff", "two.woff"):
        write_font(tmp_path / name)
    assert (tmp_path / "one.woff").read_bytes() == (tmp_path / "two.woff").read_bytes()
    assert (tmp_path / "one.woff").stat().st_size < 250_000
    font = TTFont(tmp_path / "one.woff")
    assert "MATH" in font and "Open Font License" in str(font["name"].getDebugName(13))
    assert {ord("∑"), 0x1D44A, ord("⊤")} <= set(font.getBestCmap())


def test_the_font_has_every_character_of_the_book(site):
    said = {
        character
        for soup in site.pages.values()
        for element in soup.find_all(["mi", "mn", "mo"])
        for character in element.get_text()
    }
    assert said, "the book has no mathematics"
    # These are not drawn: invisible operators, spaces, and the joiner after a formula.
    drawn = {one for one in said if not one.isspace() and not 0x2060 <= ord(one) <= 0x2064}
    missing = [one for one in drawn if not any(ord(one) in some for some in CHARACTERS)]
    assert missing == []


def test_no_tex_is_left(site):
    for path, soup in site.pages.items():
        for element in soup.select("article .math"):
            assert element.find("math") and "\\" not in element.get_text(), path
