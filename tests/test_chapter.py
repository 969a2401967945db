"""What a chapter loads, saves, records and shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from th_utils import claims, models, results, roles
from th_utils.chapter import Chapter
from th_utils.errors import CompanionError
from th_utils.figures import new_figure

ROOT = Path(__file__).resolve().parents[1]
CLAIM = next(claim for claim in claims.load_claims().values() if claim.direction == "at-least")
WORDS = {"message": "It rises to 2.", "alt": "A line that rises."}  # of any figure


@pytest.fixture(autouse=True)
def world(monkeypatch, tmp_path):
    """Own folders, and a model that is never loaded."""
    monkeypatch.setenv("TH_OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("TALKING_HEADS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "checksum", lambda edition: "c" * 64)
    monkeypatch.setattr(models, "can_run", lambda edition: True)
    return tmp_path


@pytest.fixture
def chapter():
    return Chapter(CLAIM.chapter, edition="gpt2")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# Parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edition": "gtp2"}, "did you mean 'gpt2'"),
        ({"size": "large"}, "no size 'large'"),
        ({"seed": -1}, "between 0 and"),
        ({"device": "cuda:99"}, "no device"),
        ({"number": "3"}, 'two digits in quotes, such as "03"'),
        ({"number": "aa"}, "two digits in quotes"),
    ],
)
def test_parameters_are_checked(change, message):
    options = {"number": "03", "edition": "gpt2", **change}
    with pytest.raises(CompanionError, match=message):
        Chapter(options.pop("number"), **options)


def test_making_a_chapter_imports_no_large_library():
    code = (
        "import sys; from th_utils.chapter import Chapter; "
        "Chapter('01', edition='gpt2', size='quick', seed=0, device='cpu'); "
        "print([m for m in ('torch', 'transformers', 'transformer_lens', 'IPython') "
        "if m in sys.modules])"
    )
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": search}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(("size", "expected"), [("quick", 1), ("book", 2), ("full", 3)])
def test_n_goes_with_the_size(size, expected):
    assert Chapter("01", edition="gpt2", size=size).n(quick=1, book=2, full=3) == expected


# The model


def test_model_is_loaded_when_asked_for_and_once(monkeypatch, chapter):
    calls = []
    monkeypatch.setattr(models, "load", lambda name, device: calls.append((name, device)) or "B")
    monkeypatch.setattr(models, "attention_weights", lambda name: calls.append(name) or "W")
    assert calls == []
    assert chapter.bridge == chapter.bridge == "B"
    assert chapter.weights == chapter.weights == "W"
    assert calls == [("gpt2", "cpu"), "gpt2"]


def test_attention_only_editions_have_no_bridge(monkeypatch, chapter):
    monkeypatch.setattr(models, "can_run", lambda edition: False)
    monkeypatch.setattr(models, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    assert not chapter.can_run
    with pytest.raises(CompanionError, match=f'only the attention weights.*"{models.DEFAULT}"'):
        _ = chapter.bridge


# Roles

FOUND = roles.Roles("measured", {role: [(1, 2), (0, 3)] for role in roles.ROLES}, {}, {"x": 0.1})


@pytest.fixture
def finds(monkeypatch):
    """Calls of `roles.find`, replaced by a fixed answer."""
    calls = []
    monkeypatch.setattr(models, "load", lambda name, device: "bridge")
    monkeypatch.setattr(
        roles, "find", lambda bridge, *, seed: calls.append((bridge, seed)) or FOUND
    )
    return calls


def test_roles_are_measured_once_for_all_chapters(finds):
    for number, seed in (("01", 0), ("02", 0), ("03", 5)):
        assert Chapter(number, edition="gpt2", seed=seed).roles == FOUND
    assert finds == [("bridge", 0)]


def test_roles_are_measured_again_for_other_weights_or_sources(finds, monkeypatch):
    from th_utils import digest

    assert Chapter("01", edition="gpt2").roles == FOUND
    monkeypatch.setattr(models, "checksum", lambda edition: "d" * 64)
    assert Chapter("01", edition="gpt2").roles == FOUND
    assert len(finds) == 2
    monkeypatch.setattr(digest, "digest", lambda files: "0" * 16)
    assert Chapter("01", edition="gpt2").roles == FOUND
    assert len(finds) == 3


def test_published_roles_stand_in_and_say_so(finds, monkeypatch):
    monkeypatch.setattr(models, "can_run", lambda edition: False)
    found = Chapter("02", edition="gpt2").roles
    assert found == roles.published("gpt2") and found.source == "published"
    assert finds == []


def test_no_forward_pass_and_no_published_roles_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "can_run", lambda edition: False)
    with pytest.raises(CompanionError, match="no published roles: put the whole model in place"):
        _ = Chapter("02", edition=str(tmp_path)).roles


# Figures


def draw(table):
    figure, axes = new_figure()
    axes.plot(table["x"], table["y"])
    return figure


def test_figure_is_drawn_from_what_was_saved(chapter, world):
    seen = []

    def look(table):
        seen.append(table)
        return draw(table)

    x = np.array([1 / 3, 2 / 3])
    chapter.figure(
        "fig-a", {"table": {"x": x, "y": [1, None]}, "extra": {"m": np.pi}}, look, **WORDS
    )
    (table,) = seen
    assert isinstance(table, results.Results)
    assert table.columns == {"x": [0.3333333, 0.6666667], "y": [1, None]}
    assert table.meta == {"m": 3.141593}
    folder = world / "out" / "results" / "gpt2"
    assert table == results.load_table("fig-a", folder=folder)
    said = read(folder / "fig-a.json")["provenance"]
    assert said["checksum"] == "c" * 64
    assert said["parameters"] == {"edition": "gpt2", "size": "quick", "seed": 0, "device": "cpu"}
    assert sorted(path.name for path in (world / "out" / "figures" / "gpt2").iterdir()) == [
        "fig-a.pdf", "fig-a.png", "fig-a.svg",
    ]  # fmt: skip


def test_a_table_is_saved_where_figures_have_theirs_and_shows_nothing(chapter, world, capsys):
    paths = chapter.table("explore-a", {"x": [1, 2]})
    folder = world / "out" / "results" / "gpt2"
    assert paths == {kind: folder / f"explore-a.{kind}" for kind in ("json", "csv")}
    saved = results.load_table("explore-a", folder=folder)
    assert saved.columns == {"x": [1, 2]} and saved.provenance == chapter.provenance
    assert capsys.readouterr().out == ""
    with pytest.raises(CompanionError, match="cannot name"):
        chapter.table("../a", {"x": [1]})


def test_a_recorded_table_keeps_its_edition(chapter, monkeypatch):
    marks = []
    monkeypatch.setattr("th_utils.chapter.show", lambda data, text, mark: marks.append(mark))
    provenance = results.Provenance("another", "d" * 64)
    chapter.figure("fig-a", results.Results({"x": [0], "y": [1]}, {}, provenance), draw, **WORDS)
    assert marks[0]["talking_heads"]["figure"]["edition"] == "another"


def test_a_rerun_writes_the_same_bytes(world):
    def files():
        Chapter(CLAIM.chapter, edition="gpt2").figure(
            "fig-a", {"x": [0, 1], "y": [1.5, 2]}, draw, **WORDS
        )
        return {path: path.read_bytes() for path in (world / "out").rglob("*") if path.is_file()}

    first = files()
    assert len(first) == 5
    assert files() == first


def test_style_holds_while_drawing_whatever_the_reader_set(chapter):
    import matplotlib

    sizes = []
    with matplotlib.rc_context({"font.size": 30}):
        chapter.figure(
            "fig-a",
            {"x": [0], "y": [0]},
            lambda table: sizes.append(matplotlib.rcParams["font.size"]) or draw(table),
            **WORDS,
        )
    assert sizes == [9]


def test_a_figure_of_pyplot_is_closed(chapter):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    chapter.figure("fig-a", {"x": [0], "y": [0]}, lambda table: plt.subplots()[0], **WORDS)
    assert plt.get_fignums() == before


def test_figure_names_are_checked_before_anything_is_drawn(chapter):
    with pytest.raises(CompanionError, match="cannot name a figure"):
        chapter.figure("Figure 1", {"x": [0]}, lambda table: pytest.fail("drawn"), **WORDS)


def test_random_models_are_no_editions(monkeypatch):
    monkeypatch.setattr(models, "checksum", lambda edition: pytest.fail("asked for the weights"))
    provenance = Chapter("11", edition="gpt2", random=True).provenance
    assert (provenance.checksum, provenance.edition) == ("random", "gpt2")


def test_provenance_has_the_digest_of_the_notebook(monkeypatch, tmp_path, chapter):
    from th_utils import chapter as module
    from th_utils import digest

    (tmp_path / "notebooks").mkdir()
    notebook = tmp_path / "notebooks" / f"{CLAIM.chapter}_x.ipynb"
    cell = {"cell_type": "code", "source": "from th_utils import svd", "metadata": {}}
    notebook.write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setattr(module, "checkout_root", lambda: tmp_path)
    expected = digest.digest(digest.closure_of_notebook(notebook))
    assert chapter.provenance.digest == expected
    monkeypatch.setattr(module, "checkout_root", lambda: None)
    assert Chapter(CLAIM.chapter, edition="gpt2").provenance.digest is None


# Claims


def test_claims_are_recorded_in_order_and_replaced_by_id(chapter, world):
    own = [claim.id for claim in claims.load_claims().values() if claim.chapter == CLAIM.chapter]
    chapter.claim(CLAIM.id, CLAIM.partly - 1)
    for id in own[1:]:
        chapter.claim(id, 0.5, 0.4, 0.6, note="so far")
    chapter.claim(CLAIM.id, 1 / 3 + CLAIM.holds, CLAIM.holds, 2)
    path = world / "out" / "results" / "gpt2" / f"claims-{CLAIM.chapter}.json"
    said = read(path)
    assert [record["id"] for record in said["claims"]] == own
    assert said["claims"][0] == {
        "id": CLAIM.id,
        "edition": "gpt2",
        "size": "quick",
        "value": results.rounded(1 / 3 + CLAIM.holds),
        "low": CLAIM.holds,
        "high": 2.0,
        "verdict": "holds",
        "note": None,
    }
    assert said["chapter"] == CLAIM.chapter and said["provenance"]["edition"] == "gpt2"
    Chapter(CLAIM.chapter, edition="gpt2").claim(own[-1], 0.5)
    assert [record["id"] for record in read(path)["claims"]] == own[-1:], "an older run's claim"


def test_the_number_recorded_is_the_number_judged(chapter, world):
    chapter.claim(CLAIM.id, CLAIM.holds - 1e-12)
    path = world / "out" / "results" / "gpt2" / f"claims-{CLAIM.chapter}.json"
    (record,) = read(path)["claims"]
    assert record["value"] == CLAIM.holds and record["verdict"] == "holds"


def test_claims_of_nobody_and_of_other_chapters(chapter):
    with pytest.raises(CompanionError, match=f"did you mean '{CLAIM.id}'"):
        chapter.claim(CLAIM.id + "s", 1.0)
    other = next(c for c in claims.load_claims().values() if c.chapter != CLAIM.chapter)
    with pytest.raises(CompanionError, match=f"belongs to chapter {other.chapter}"):
        chapter.claim(other.id, 1.0)


def test_a_local_path_is_not_recorded(world, tmp_path):
    chapter = Chapter(CLAIM.chapter, edition=str(tmp_path))
    chapter.figure("fig-a", {"x": [0], "y": [0]}, draw, **WORDS)
    chapter.claim(CLAIM.id, 1.0)
    for path in (world / "out").rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path.name


# What is shown


def test_plain_python_prints(chapter, capsys, world):
    chapter.say("It is **so**.")
    chapter.figure("fig-a", {"x": [0], "y": [0]}, draw, **WORDS)
    chapter.claim(CLAIM.id, CLAIM.holds)
    chapter.done()
    said = capsys.readouterr().out
    assert said.startswith("It is **so**.\nfigure fig-a: ")
    assert f"Claim: holds\n:class: tip claim claim-holds\n{CLAIM.claim}\n" in said
    assert "ran at size `quick` on edition `gpt2`, with seed 0." in said
    untested = said.rpartition("Not measured")[2]
    for claim in claims.load_claims().values():
        expected = claim.chapter == CLAIM.chapter and claim.id != CLAIM.id
        assert (f"`{claim.id}`" in untested) == expected


CELLS = [
    "from th_utils.chapter import Chapter",
    "chapter = Chapter('{number}', edition={edition!r})",
    "chapter.bridge.cfg.n_layers, chapter.weights.W_Q.shape[0]",
    "import logging, warnings, transformers\n"
    "logging.getLogger('transformer_lens').warning('noise')\n"
    "transformers.utils.logging.get_logger('transformers.x').warning('noise')\n"
    "warnings.warn_explicit('noise', UserWarning, 'f.py', 1, module='torch.nn')\n"
    "list(transformers.utils.logging.tqdm([1]))\n"
    "from tqdm.auto import tqdm\nlist(tqdm([1]))\n"
    "from th_utils.progress import track\nlist(track([1], 'work'))",
    "from th_utils.figures import new_figure\n"
    "def draw(table):\n"
    "    figure, axes = new_figure()\n"
    "    axes.plot(table['x'])\n"
    "    return figure",
    "chapter.figure('fig-a', {{'x': [0, 1]}}, draw, message='It $x$.', alt='A line.')",
    "chapter.claim('{claim}', 2, note='So far.')",
    "chapter.say('See {{numref}}`fig-a`.')",
    "chapter.showed()",
    "chapter.done()",
    "Chapter('01', edition='gtp2')",
]


@pytest.fixture(scope="module")
def executed(tiny_gpt2, tmp_path_factory):
    """The outputs of each cell of a small notebook, run twice in a kernel."""
    import nbformat
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("kernel")
    values = {"number": CLAIM.chapter, "edition": str(tiny_gpt2), "claim": CLAIM.id}
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {
        "TH_OUTPUT": str(folder / "out"),
        "TALKING_HEADS_CACHE": str(folder / "cache"),
        "PYTHONPATH": search,
        "OMP_NUM_THREADS": "1",
    }
    env.pop("TH_PROGRESS", None)
    runs = []
    for _ in range(2):
        cells = [nbformat.v4.new_code_cell(cell.format(**values)) for cell in CELLS]
        notebook = nbformat.v4.new_notebook(cells=cells)
        NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True).execute(
            env=env, cwd=str(folder)
        )
        runs.append([cell.outputs for cell in notebook.cells])
    return runs


def test_a_rerun_shows_the_same(executed):
    first, second = executed
    assert first == second


def test_libraries_say_nothing_in_a_cell(executed):
    outputs = executed[0]
    assert outputs[:2] == [[], []]
    assert [output["data"] for output in outputs[2]] == [{"text/plain": "(3, 3)"}]
    assert [output["data"] for output in outputs[3]] == [{"text/plain": "[1]"}]
    assert outputs[4] == []
    kinds = {output["output_type"] for cell in outputs[5:10] for output in cell}
    assert kinds == {"display_data"}


def test_figure_in_a_kernel(executed, tiny_gpt2):
    (output,) = executed[0][5]
    assert set(output["data"]) == {"image/png", "text/plain"}
    assert output["data"]["text/plain"] == "<figure fig-a>"
    name = tiny_gpt2.name
    record = output["metadata"]["talking_heads"]["figure"]
    files = record.pop("files")
    assert record == {"id": "fig-a", "edition": name, "message": "It $x$.", "alt": "A line."}
    kinds = sorted(file.rpartition(".")[2] for file in files)
    assert kinds == ["csv", "json", "pdf", "png", "svg"]
    assert not any(file.startswith("/") for file in files)
    assert output["metadata"]["image/png"] == {"width": 420, "height": 280}


def test_claim_in_a_kernel(executed, tiny_gpt2):
    (output,) = executed[0][6]
    assert set(output["data"]) == {"text/markdown"}
    assert output["data"]["text/markdown"].startswith(":::{admonition} Claim: holds\n")
    assert output["metadata"] == {
        "talking_heads": {
            "claim": {
                "id": CLAIM.id,
                "edition": tiny_gpt2.name,
                "size": "quick",
                "value": 2.0,
                "low": None,
                "high": None,
                "verdict": "holds",
                "note": "So far.",
            }
        }
    }


def test_prose_in_a_kernel(executed):
    (output,) = executed[0][7]
    assert output["data"] == {"text/markdown": "See {numref}`fig-a`."}
    (output,) = executed[0][8]
    assert CLAIM.claim in output["data"]["text/markdown"]
    (output,) = executed[0][9]
    assert "size `quick`" in output["data"]["text/markdown"]
    assert CLAIM.id not in output["metadata"]["talking_heads"]["done"]["open"]


def test_errors_for_people_are_one_line_in_a_kernel(executed):
    (output,) = executed[0][10]
    assert output["ename"] == "CompanionError"
    assert len(output["traceback"]) == 1 and "did you mean 'gpt2'" in output["traceback"][0]
