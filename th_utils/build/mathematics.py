"""A Sphinx extension: mathematics as MathML, made when the book is built.

A page needs neither a script nor a font for it. What the converter does not know is a warning, and
so fails a strict build, instead of TeX in the middle of a sentence.
"""

from __future__ import annotations

import re

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.writers.html5 import HTML5Translator

LOG = logging.getLogger(__name__)
# Local state: Sphinx counts the equations, the converter must not.
CONVERTER = LatexToMathML(fancy_error=False)
NUMBERED = re.compile(r"\\(begin|end)\{(align|equation|gather)\}")


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
    translator.body.append(_element(node, node.astext(), False) + "</span>")
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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer `mathml`, which `_config.yml` chooses."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
