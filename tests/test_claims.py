"""The verdict rule, the ledger's own rules, and how a claim is shown."""

import math

import pytest
import yaml

from th_utils.claims import (
    Claim,
    find_claim,
    load_claims,
    number,
    parse_claims,
    render,
    summary,
    verdict,
)  # fmt: skip
from th_utils.errors import CompanionError
from th_utils.paths import data_path

ENTRY = {
    "id": "a-claim",
    "chapter": "02",
    "paper": "A",
    "where": "section 3",
    "claim": "It is so.",
    "statistic": "share of it",
    "direction": "at-least",
    "holds": 0.9,
    "partly": 0.7,
    "reconstruction": True,
    "needs": "weights",
}
AT_LEAST = Claim(**ENTRY)
AT_MOST = Claim(**{**ENTRY, "direction": "at-most", "holds": 0.1, "partly": 0.3})


@pytest.mark.parametrize(
    ("claim", "numbers", "expected"),
    [
        (AT_LEAST, (0.9,), "holds"),
        (AT_LEAST, (0.8999,), "partly"),
        (AT_LEAST, (0.7,), "partly"),
        (AT_LEAST, (0.6999,), "fails"),
        (AT_LEAST, (0.95, 0.9, 1.0), "holds"),
        (AT_LEAST, (0.95, 0.89, 1.0), "partly"),
        (AT_LEAST, (0.95, 0.5, 1.0), "fails"),
        (AT_MOST, (0.1,), "holds"),
        (AT_MOST, (0.11,), "partly"),
        (AT_MOST, (0.3,), "partly"),
        (AT_MOST, (0.31,), "fails"),
        (AT_MOST, (0.05, 0.0, 0.1), "holds"),
        (AT_MOST, (0.05, 0.0, 0.2), "partly"),
        (AT_MOST, (0.05, 0.0, 0.4), "fails"),
        (AT_MOST, (-5.0,), "holds"),
    ],
)
def test_the_pessimistic_end_decides(claim, numbers, expected):
    assert verdict(claim, *numbers) == expected


@pytest.mark.parametrize(
    "numbers", [(math.nan,), (math.inf,), (0.5, math.nan, 0.6), (0.5, 0.6, 0.4), (0.5, 0.4, None)]
)
def test_what_cannot_be_judged(numbers):
    with pytest.raises(ValueError, match="a-claim"):
        verdict(AT_LEAST, *numbers)


def test_ledger_is_read_whole_and_in_order():
    said = yaml.safe_load(data_path("claims.yml").read_text(encoding="utf-8"))["claims"]
    found = load_claims()
    assert list(found) == [entry["id"] for entry in said]
    for entry in said:
        assert vars(found[entry["id"]]) == entry


def test_ledger_cannot_be_spoilt_by_a_caller():
    load_claims().clear()
    assert load_claims()


def test_find_claim_offers_near_matches():
    known = next(iter(load_claims()))
    assert find_claim(known).id == known
    with pytest.raises(CompanionError, match=f"did you mean '{known}'"):
        find_claim(known[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"holds": "0.9"}, "holds must be a number"),
        ({"holds": True}, "holds must be a number"),
        ({"direction": "more"}, "direction must be at-least or at-most"),
        ({"needs": "gpu"}, "needs must be forward or weights"),
        ({"chapter": 2}, "chapter must be text in quotes"),
        ({"reconstruction": "no"}, "reconstruction must be true or false"),
        ({"partly": 0.95}, "`partly` must be easier"),
        ({"direction": "at-most"}, "`partly` must be easier"),
        ({"threshold": 1}, "unknown key threshold"),
    ],
)
def test_a_broken_ledger_names_the_claim(change, message):
    with pytest.raises(CompanionError, match=f"'a-claim'.*{message}"):
        parse_claims([{**ENTRY, **change}])


def test_a_ledger_with_gaps_or_doubles():
    with pytest.raises(CompanionError, match="lacks holds, where"):
        parse_claims([{k: v for k, v in ENTRY.items() if k not in ("holds", "where")}])
    with pytest.raises(CompanionError, match="two claims 'a-claim'"):
        parse_claims([ENTRY, ENTRY])
    with pytest.raises(CompanionError, match="a list of claims"):
        parse_claims(None)


def test_render():
    record = {
        "value": 0.934,
        "low": 0.8996,
        "high": 0.97,
        "verdict": "partly",
        "note": "So far.",
    }
    assert render(AT_LEAST, record) == (
        ":::{admonition} Claim: partly\n"
        ":class: warning claim claim-partly\n"
        "It is so.\n"
        "\n"
        "Measured: share of it: **0.93 (95% interval 0.8996 to 0.97)**. "
        "Holds from ≥ 0.9, partly from ≥ 0.7: **partly**. "
        "*(Reconstruction: the definition is ours.)* So far.\n"
        ":::"
    )


def test_summary_has_those_that_hold_first():
    one, two = [claim.id for claim in load_claims().values()][:2]
    record = dict(low=None, high=None)
    text = summary(
        [
            record | dict(id=one, value=0.5, verdict="fails", low=0.25, high=0.75),
            record | dict(id=two, value=3, verdict="holds"),
        ]
    )
    assert text.startswith("Of this chapter's claims 1 holds, 1 fails.")
    head, _, first, last = text.split("\n")
    assert first == f"- **Holds** (3.00): {find_claim(two).claim}"
    assert last == f"- **Fails** (0.50, 0.25 to 0.75): {find_claim(one).claim}"
    assert summary([]) == "None of this chapter's claims could be measured on this edition."


def test_render_without_interval():
    plain = Claim(**{**vars(AT_MOST), "reconstruction": False})
    text = render(
        plain, {"value": 0.5, "low": None, "high": None, "verdict": "fails", "note": None}
    )
    assert ":class: danger claim claim-fails" in text
    assert "**0.50**. Holds from ≤ 0.1, partly from ≤ 0.3: **fails**.\n:::" in text


@pytest.mark.parametrize(
    ("value", "thresholds", "text"),
    [
        (0.0, (), "0.00"),
        (12.345, (), "12.35"),
        (-0.4567, (), "-0.46"),
        (0.0345, (), "0.035"),
        (99999.4, (), "99999"),
        (0.6999, (0.7,), "0.6999"),
        (0.70001, (0.7,), "0.70001"),
        (0.7, (0.7,), "0.70"),
        (1, (0.7,), "1.00"),
    ],
)
def test_numbers_show_their_side_of_the_threshold(value, thresholds, text):
    assert number(value, thresholds) == text
