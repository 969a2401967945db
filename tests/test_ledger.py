"""The claims ledger: its rows, its page, its exports, and the tests that it names."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
import toy
from test_citation import SAID

from th_utils.build import ledger, ledger_page, notebooks
from th_utils.build.layout import Layout, find_root
from th_utils.claims import load_claims

LAYOUT = Layout(find_root())
CLAIM = dict(
    id="a", chapter="01", paper="A", where="w", claim="x | y", statistic="s", direction="at-least",
    holds=0.9, partly=0.7, reconstruction=True, needs="weights",
)  # fmt: skip
FOUND = {"id": "a", "value": 0.51234, "low": 0.4, "high": 0.6, "verdict": "fails", "note": "So."}
ONE = ledger.Edition(
    "one", False, False, "book", {"a": FOUND}, {"a": "notebooks/01_x.ipynb::Cell 4"}
)
TWO = ledger.Edition("two", True, True, "quick", {}, {})
FIGURES = [
    {"id": "fig-01-x", "claims": ["a"], "editions": ["one"]},
    {"id": "fig-01-x-two", "claims": ["a"], "editions": ["two"]},
    {"id": "fig-01-y", "claims": ["b"], "editions": ["one"]},
    {"id": "fig-11-z", "claims": ["a"], "editions": ["random models"]},
]


def rows():
    return ledger.rows([CLAIM], [ONE, TWO], FIGURES)


def committed():
    return {name: notebooks.read(LAYOUT.source(name)) for name in LAYOUT.chapters()}


def test_a_row_for_each_claim_and_edition():
    first, second = rows()
    assert (first["verdict"], first["value"]) == ("fails", 0.51234)
    assert first["test"] == "notebooks/01_x.ipynb::Cell 4" and first["size"] == "book"
    assert second["verdict"] == ledger.NOT_MEASURED
    assert second["value"] is None and second["test"] is None and second["size"] is None
    assert second["command"] is None


def test_a_row_has_the_figures_that_show_its_edition():
    """Random models stand for every edition on which the claim was measured."""
    first, second = rows()
    assert first["figures"] == ["fig-01-x", "fig-11-z"]
    assert second["figures"] == ["fig-01-x-two"]


def test_the_page():
    text = ledger_page.page(rows(), [ONE, TWO], SAID, {"01": "01_x"})
    assert "| `two`, recorded from earlier sources |" in text
    assert "○ 1 fails" in text and "{doc}`../notebooks/01_x`" in text
    (line,) = [line for line in text.splitlines() if 'id="claim-a"' in line]
    assert "{ref}`○ fails <verdict-a>`" in line and "0.512 (0.4 to 0.6)" in line
    assert "x \\| y" in line and "Fig. {numref}`{number} <fig-01-x>`" in line
    assert "not measured" in line and "fig-01-x-two" not in line
    assert 'href="https://github.com/Someone/it/blob/abc123/notebooks/01_x.ipynb"' in line
    assert "holds from ≥ 0.9, partly from ≥ 0.7" in text and "*Reconstruction.*" in text
    assert "So. Test: `notebooks/01_x.ipynb`, `Cell 4`." in text


def test_the_exports_say_the_same():
    table = list(csv.DictReader(io.StringIO(ledger.as_csv(rows(), SAID))))
    assert [row["edition"] for row in table] == ["one", "two"]
    assert table[0]["value"] == "0.51234" and table[1]["value"] == ""
    assert table[0]["figures"] == "fig-01-x fig-11-z" and table[0]["version"] == SAID.version
    (claim,) = json.loads(ledger.as_json(rows(), SAID))["claims"]
    assert claim["statistic"] == "s"
    for said, row in zip(claim["editions"], table, strict=True):
        assert (said["edition"], said["verdict"]) == (row["edition"], row["verdict"])
        assert (said["test"] or "", said["command"] or "") == (row["test"], row["command"])
        assert said["figures"] == row["figures"].split()


def test_every_claim_and_edition_is_in_the_built_exports(site):
    found = json.loads((site.folder / "book" / "claims.json").read_text())["claims"]
    assert [claim["id"] for claim in found] == list(load_claims())
    with open(site.folder / "book" / "claims.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == sum(len(c["editions"]) for c in found)
    figures = json.loads((site.folder / "book" / "figures.json").read_text())["figures"]
    shown = {figure["id"]: {*figure["editions"]} for figure in figures}
    for edition in (each for claim in found for each in claim["editions"]):
        for name in edition["figures"]:
            assert shown[name] & {edition["edition"], "random models"}, (name, edition["edition"])


def test_every_verdict_leads_to_where_it_was_measured(site):
    page = site.folder / "book" / "claims.html"
    links = {link["href"] for link in site.pages[page].find_all("a", href=True)}
    for claim in json.loads((site.folder / "book" / "claims.json").read_text())["claims"]:
        for edition in claim["editions"]:
            if edition["test"] and edition["source"] == "this build":
                chapter = edition["test"].partition("::")[0].replace(".ipynb", ".html")
                assert f"../{chapter}#verdict-{claim['id']}" in links, claim["id"]


def test_the_tests_that_it_names_exist():
    """Every measured claim names a cell of the notebook that shows it, or a recorded chapter."""
    chapters = committed()
    for edition in ledger.editions(LAYOUT, chapters):
        for claim, test in edition.tests.items():
            file, _, name = test.partition("::")
            assert (LAYOUT.root / file).exists(), test
            if edition.recorded:
                assert name.partition("[")[0] in (LAYOUT.root / file).read_text(), test
                continue
            code = [c for c in chapters[file[10:-6]].cells if c.cell_type == "code"]
            cell = code[int(name.removeprefix("Cell "))]
            said = [o.metadata.get("talking_heads", {}).get("claim", {}) for o in cell.outputs]
            assert claim in {record.get("id") for record in said}, test


def test_the_page_says_how_a_chapter_is_tested():
    """The command is the one that `make test` uses, and the size is the committed one."""
    text = (LAYOUT.root / "book" / "claims.md").read_text(encoding="utf-8")
    assert f"\n{ledger.command('notebooks/01_task.ipynb::Cell 5')}\n" in text
    assert ledger.OF_NOTEBOOK.removeprefix("pytest ") in (LAYOUT.root / "Makefile").read_text()
    sizes = {notebooks.parameters(chapter)["size"] for chapter in committed().values()}
    sizes |= {edition.size for edition in ledger.editions(LAYOUT, committed())}
    assert [f"of size `{size}`" in text for size in sizes] == [True]


@pytest.mark.slow
def test_the_test_that_it_names_fails_when_the_verdict_changes(tmp_path):
    """A small chapter whose committed outputs give another value than it measures now."""
    claim = next(c for c in load_claims().values() if c.needs == "weights")
    cells = [
        "from th_utils.chapter import Chapter",
        f"chapter = Chapter({claim.chapter!r}, edition='gpt2', random=True)",
        f"chapter.claim({claim.id!r}, {claim.holds!r})",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for number, cell in enumerate(notebook.cells, 1):
        cell.execution_count = number
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / f"{claim.chapter}_x.ipynb"
    from nbclient import NotebookClient

    NotebookClient(notebook, kernel_name="python3").execute(env=toy.environment(LAYOUT.root))
    nbformat.write(notebook, path)
    editions = ledger.editions(Layout(tmp_path), {path.stem: notebook})
    (row,) = ledger.rows([{"id": claim.id}], editions, [])
    (tmp_path / "tests").mkdir()
    shutil.copy(LAYOUT.root / "tests" / "nbval_sanitize.cfg", tmp_path / "tests")
    assert outcome(row["command"], tmp_path) == []
    output = notebook.cells[2].outputs[0]
    output.data["text/markdown"] = output.data["text/markdown"].replace("holds", "fails")
    nbformat.write(notebook, path)
    (failed,) = outcome(row["command"], tmp_path)
    assert failed == row["test"]


def outcome(command, folder) -> list[str]:
    """The tests that fail when a command of the ledger is run in `folder`, as pytest names them."""
    command = [sys.executable, "-m", *shlex.split(command), "-q", "-rf"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(folder), "-c", "/dev/null"]
    env = toy.environment(LAYOUT.root)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    return [line.split(" - ")[0].removeprefix("FAILED ") for line in lines]
