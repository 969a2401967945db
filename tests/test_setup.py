"""The first cell of a chapter: what it says, and what it refuses before anything is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from th_utils import __version__, setup
from th_utils.chapter import Chapter
from th_utils.errors import CompanionError


def needs(*lines: str) -> list[Requirement]:
    return [Requirement(line) for line in lines]


def test_says_nothing_in_a_checkout(capsys):
    assert setup.ready() is Chapter
    assert capsys.readouterr().out == ""


def test_what_the_package_needs_is_read_from_it():
    names = {requirement.name for requirement in setup.requirements()}
    assert {"torch", "transformer-lens", "numpy"} <= {name.replace("_", "-") for name in names}
    assert "pytest" not in names  # an extra


def test_checks_come_before_anything_is_imported():
    code = (
        "import sys; from th_utils.setup import ready; "
        "print([m for m in ('numpy', 'torch', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_package_replaced_under_a_running_session(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", SimpleNamespace(__version__="1.26.4"))
    monkeypatch.setattr(setup, "version", lambda name: "2.4.6")
    with pytest.raises(CompanionError) as caught:
        setup.check_loaded(needs("numpy>=2,<3"))
    said = "numpy 2.4.6 has been installed, but this session had loaded 1.26.4 before: restart"
    assert str(caught.value).startswith(said)


def test_local_builds_of_a_version_are_that_version(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="2.13.0+cpu"))
    monkeypatch.setattr(setup, "version", lambda name: "2.13.0")
    setup.check_loaded(needs("torch>=2.6,<3"))


@pytest.mark.parametrize("here", ["2.0.0", "2.4.6", "2.4.6+local"])
def test_versions_that_fit(monkeypatch, here):
    monkeypatch.setattr(setup, "version", lambda name: here)
    setup.check_bounds(needs("numpy>=2,<3"))


@pytest.mark.parametrize("here", ["1.26.4", "2.0.0rc1", "3.0.0", None])
def test_versions_that_do_not_fit(monkeypatch, here):
    monkeypatch.setattr(setup, "version", lambda name: here)
    with pytest.raises(CompanionError) as caught:
        setup.check_bounds(needs("numpy>=2,<3"))
    said = f"does not fit: numpy {here or 'is missing'} (numpy<3,>=2 is needed)"
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_was_installed_and_what_was_kept(monkeypatch):
    versions = {"torch": "2.9.0", "transformer_lens": "4.3.0", setup.PROJECT: __version__}
    monkeypatch.setattr(setup, "version", versions.get)
    url = {
        "url": "https://example.org/r",
        "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"},
    }
    monkeypatch.setattr(
        setup.metadata,
        "distribution",
        lambda name: SimpleNamespace(read_text=lambda file: json.dumps(url)),
    )
    needed = needs("torch>=2.6,<3", "transformer_lens>=4.3,<5")
    new = {setup.normal(setup.PROJECT), "transformer_lens", "einops", "wandb"}
    said = setup.said(needed, new)
    assert (
        f"{__version__} installed from https://example.org/r, commit 0123456789ab, Python" in said
    )
    assert "Installed or replaced for it: transformer_lens 4.3.0 (and 2 that those need)." in said
    assert "As found: torch 2.9.0." in said
    assert "was here already" in setup.said(needed, set())


def test_packages_older_than_this_process_are_not_new():
    assert "torch" not in setup.installed_now()


def test_packages_younger_than_this_process(monkeypatch, tmp_path):
    (tmp_path / "th_utils").mkdir()
    record = tmp_path / "Some_Package-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("")
    monkeypatch.setattr(setup, "__file__", str(tmp_path / "th_utils" / "setup.py"))
    assert setup.installed_now() == {"some_package"}
