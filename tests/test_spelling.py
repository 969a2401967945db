"""One spelling, the British one, and no misspelt words; by codespell's dictionaries."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import codespell_lib
import pytest

from th_utils.build.layout import find_root

ROOT = find_root()
DICTIONARY = Path(codespell_lib.__file__).parent / "data" / "dictionary_en-GB_to_en-US.txt"
# Spelt so in Britain too, in one of their senses; and `math` is the name of an HTML element.
BRITISH_TOO = set("license licensed licenses math meter program programs stories story".split())
SAID_BY_OTHERS = re.compile(
    r"`[^`]*`|\{cite:\w\}`[^`]*`|https?://\S+|!\[[^]]*\]|<[^>]+>|\]\([^)]*\)|@\w+\{|\$[^$]*\$"
    r"|:math:|\.\. math::|Color Universal Design"
)


def american() -> dict[str, str]:
    """American spellings and the British ones in their place."""
    found = {}
    for line in DICTIONARY.read_text(encoding="utf-8").splitlines():
        british, _, others = line.partition("->")
        found |= {word.strip(): british for word in others.split(",") if word.strip()}
    return {word: british for word, british in found.items() if word not in BRITISH_TOO}


AMERICAN = american()


def found_in(text: str) -> set[str]:
    """The American words of a text; code, addresses and names of works are left out."""
    text = SAID_BY_OTHERS.sub(" ", text)
    return {word for word in re.findall(r"[A-Za-z]+", text) if word.lower() in AMERICAN}


def texts() -> list[tuple[str, str]]:
    """What people read: pages, prose of chapters, comments, docstrings and sentences in code."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not path.exists():
            continue
        if path.suffix == ".md" or name.endswith(("claims.yml", "models.yml")):
            fenced = re.sub(r"```(?!\{)\w*\n.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
            found.append((name, fenced))
        elif path.suffix == ".ipynb":
            found.append((name, "\n".join(chapter(path))))
        elif path.suffix == ".py":
            found.append((name, "\n".join(sentences(path))))
    return found


def chapter(path: Path) -> list[str]:
    """Prose, captions, alt texts and sentences made at run time."""
    said = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            said.append("".join(cell["source"]))
        said.append(json.dumps(cell["metadata"].get("mystnb", {})))
        for output in cell.get("outputs", []):
            said.append("".join(output.get("data", {}).get("text/markdown", "")))
            said.append(json.dumps(output.get("metadata", {}).get("talking_heads", {})))
    return said


def sentences(path: Path) -> list[str]:
    """Comments and docstrings; and the strings of the modules that say something to readers."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    found = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    described = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found += [
        ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, described)
    ]
    if path.parent.name == "prose":
        strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
        found += [node.value for node in strings if isinstance(node.value, str)]
    return found


def test_the_spelling_is_british():
    wrong = {name: words for name, text in texts() if (words := found_in(text))}
    assert not wrong


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The colour is grey", set()),
        ("The color is gray", {"color", "gray"}),
        ("`color`, {cite:p}`smith2000behavior` and https://x.org/color", set()),
        ("Normalize: a computer program tells stories", {"Normalize"}),
    ],
)
def test_american_words_are_found(text, words):
    assert found_in(text) == words


def test_no_word_is_misspelt():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    kinds = (".md", ".py", ".yml", ".toml", ".cff", ".css", ".js")
    files = [
        name
        for name in listed.stdout.splitlines()
        if name.endswith(kinds) and (ROOT / name).exists()
    ]
    ignored = "abd,caf,doubleclick,nce"  # pieces of code and of tests
    command = [sys.executable, "-m", "codespell_lib", "-L", ignored, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
