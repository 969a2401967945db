"""An error for a person is one line, also in IPython."""

import pytest

from th_utils.errors import CompanionError, near_matches


def test_message_is_one_line():
    error = CompanionError("cannot read\n   the file:\tno such thing  ")
    assert str(error) == "cannot read the file: no such thing"


def test_ipython_shows_that_line_and_no_traceback():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell()
    with capture_output() as captured:
        shell.run_cell(
            "from th_utils.errors import CompanionError\nraise CompanionError('do this')",
            store_history=False,
        )
    assert captured.stdout.split() == ["CompanionError:", "do", "this"]
    assert captured.stderr == ""


def test_subclass_is_named_in_the_line():
    class Missing(CompanionError):
        pass

    assert Missing("not here")._render_traceback_() == ["Missing: not here"]


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        ("pythia-160", "did you mean 'pythia-160m'?"),
        ("GPT2", "did you mean 'gpt2' or 'gpt2-medium'?"),
        ("gpt2-medum", "did you mean 'gpt2-medium' or 'gpt2'?"),
        ("llama", "known are 'gpt2', 'gpt2-medium', 'pythia-160m'"),
    ],
)
def test_near_matches(name, clause):
    assert near_matches(name, ["pythia-160m", "gpt2", "gpt2-medium", "gpt2"]) == clause
