"""A Sphinx extension: mathematics as MathML, made when the book is built.

A page needs no script for it. What the converter does not know is a warning, and so fails a strict
build, instead of TeX in the middle of a sentence. A font with the measures of mathematics, which
many machines lack, is cut out of a larger one and lies beside the style sheet.
"""

from __future__ import annotations

import itertools
import re
from importlib.resources import files
from pathlib import Path

from docutils import nodes
from fontTools import subset
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

LOG = logging.getLogger(__name__)
# Local state: Sphinx counts the equations, the converter must not.
CONVERTER = LatexToMathML(fancy_error=False)
NUMBERED = re.compile(r"\\(begin|end)\{(align|equation|gather)\}")

CLOSING = tuple(".,;:!?)]’”")
FONT = "mathematics.woff"
# Letters, accents, Greek, arrows, operators, delimiters; bold, italic and double-struck letters.
CHARACTERS = (
    range(0x20, 0x100),
    range(0x300, 0x340),
    range(0x391, 0x3F7),
    range(0x2010, 0x2065),
    range(0x2100, 0x2150),
    range(0x2190, 0x21A7),
    range(0x21D0, 0x21D5),
    range(0x2200, 0x2300),
    range(0x2308, 0x230C),
    range(0x23B4, 0x23E0),
    range(0x27E8, 0x27EC),
    range(0x1D400, 0x1D468),
    range(0x1D538, 0x1D56C),
    range(0x1D6A4, 0x1D6E2),
)


def mathml(tex: str, display: bool = False) -> str:
    """Return `tex` as a MathML element; raises `math_core.LatexError` for what is not known.

    >>> mathml("W_Q")
    '<math><msub><mi>W</mi><mi>Q</mi></msub></math>'
    """
    return CONVERTER.convert_with_local_state(tex, displaystyle=display)


def displayed(tex: str) -> str:
    r"""Return `tex` as the converter wants it: several lines aligned, and without numbers.

    >>> displayed(r"a &= b \\ c &= d")
    '\\begin{aligned}a &= b \\\\ c &= d\\end{aligned}'
    >>> displayed(r"\begin{align}a &= b\end{align}")
    '\\begin{align*}a &= b\\end{align*}'
    """
    tex = NUMBERED.sub(r"\\\1{\2*}", tex.strip())
    if r"\\" in tex and r"\begin{" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    return tex


def _element(node: nodes.Element, tex: str, display: bool) -> str:
    try:
        return mathml(tex, display)
    except LatexError as error:
        LOG.warning("mathematics %r: %s", tex, " ".join(str(error).split()), location=node)
        return f"<code>{nodes.unescape(tex)}</code>"


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(translator.starttag(node, "span", "", CLASS="math notranslate"))
    # A line may break after a formula, but not before the full stop that follows it.
    after = node.next_node(nodes.Text, descend=False, siblings=True)
    joined = "&#x2060;" if after is not None and after.astext()[:1] in CLOSING else ""
    translator.body.append(_element(node, node.astext(), False) + f"{joined}</span>")
    raise nodes.SkipNode


def visit_display(translator: HTML5Translator, node: nodes.math_block) -> None:
    # It can be scrolled where a line is wider than a telephone, by keyboard too.
    options = {"CLASS": "math notranslate", "tabindex": "0"}
    translator.body.append(translator.starttag(node, "div", "", **options))
    translator.body.append(_element(node, displayed(node.astext()), True))
    if node.get("number"):
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def write_font(target: Path) -> None:
    """Write STIX Two Math, reduced to `CHARACTERS`, as a font for the web."""
    options = subset.Options(flavor="woff", layout_features=["*"], name_IDs=["*"], hinting=False)
    options.notdef_outline = True
    path = files("ziamath.fonts") / "STIXTwoMath-Regular.ttf"
    font = subset.load_font(str(path), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=itertools.chain(*CHARACTERS))
    cutter.subset(font)
    # The licence stays in the font's own table of names.
    font["head"].modified = font["head"].created
    font.recalcTimestamp = False
    subset.save_font(font, str(target), options)


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        write_font(Path(app.outdir) / "_static" / FONT)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer `mathml`, which `_config.yml` chooses."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
