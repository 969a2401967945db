"""Every parameter that cannot be used gets one line that says what to write instead."""

import pytest

from th_utils.errors import CompanionError
from th_utils.parameters import check_parameters, check_whole_number

GOOD = {"edition": "gpt2", "size": "quick", "seed": 0, "device": "cpu"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"edition": "pythia-160m"},
        {"edition": "EleutherAI/pythia-70m"},
        {"size": "book"},
        {"size": "full"},
        {"seed": 2**32 - 1},
    ],
)
def test_good_parameters(change):
    check_parameters(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"edition": 3},
            'edition must be text in quotes, not 3 (int): for example edition = "gpt2"',
        ),
        ({"edition": ""}, "edition must be text in quotes, not '' (str)"),
        ({"edition": "gpt-2"}, "did you mean 'gpt2'"),
        ({"edition": "smollm2"}, "'smollm2-135m-instruct-q4'"),
        ({"edition": "/no/such/folder"}, "/no/such/folder"),
        ({"size": None}, "size must be text in quotes, not None (NoneType)"),
        ({"size": "Quick"}, "no size 'Quick': did you mean 'quick'?"),
        ({"size": "big"}, "no size 'big': known are 'book', 'full', 'quick'"),
        ({"seed": "0"}, "seed must be a whole number, not '0' (str): for example seed = 0"),
        ({"seed": 1.0}, "seed must be a whole number, not 1.0 (float)"),
        ({"seed": True}, "seed must be a whole number, not True (bool)"),
        ({"seed": -1}, "seed must lie between 0 and 4294967295, not at -1"),
        ({"seed": 2**32}, "seed must lie between 0 and 4294967295"),
        ({"device": 0}, "device must be text in quotes, not 0 (int)"),
        ({"device": ["cpu"] * 50}, "..."),
    ],
)
def test_bad_parameters(change, message):
    with pytest.raises(CompanionError) as caught:
        check_parameters(**{**GOOD, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", 'no device \'gpu\': use "cpu", "cuda" or "mps"'),
        ("cuda:99", "this machine has no device 'cuda:99': use device = \"cpu\""),
        ("meta", "this machine has no device 'meta'"),
    ],
)
def test_devices_that_are_not_there(device, message):
    pytest.importorskip("torch")
    with pytest.raises(CompanionError) as caught:
        check_parameters(**{**GOOD, "device": device})
    assert message in str(caught.value)


def test_whole_numbers_of_other_parameters():
    check_whole_number("prompts", 8, low=8, high=64)
    with pytest.raises(CompanionError, match="prompts must lie between 8 and 64, not at 7"):
        check_whole_number("prompts", 7, low=8, high=64)
    with pytest.raises(CompanionError, match="prompts must be a whole number, not 8.5"):
        check_whole_number("prompts", 8.5, low=8, high=64)
