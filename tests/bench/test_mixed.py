"""The verdict of the mixed load, from samples that are made up."""

from __future__ import annotations

from collections import Counter

from bench.figures import drifts
from bench.mixed import BOUNDS, KINDS, full, unmet

BEFORE = {"calls": 0.0, "greenlets": 9.0}


def samples(**grown: float) -> list[dict[str, float]]:
    """Thirty samples in which the named quantities grow by so much in all."""
    steady = dict.fromkeys(BOUNDS, 100.0)
    return [
        {name: value + grown.get(name.partition(",")[0], 0.0) * number / 29 for name, value in steady.items()}
        for number in range(30)
    ]


def test_a_gateway_that_does_not_grow_meets_all_demands() -> None:
    assert unmet(drifts(samples(), BOUNDS), Counter(), BEFORE, BEFORE) == []


def test_what_grows_is_named() -> None:
    [fault] = unmet(drifts(samples(memory=6.0), BOUNDS), Counter(), BEFORE, BEFORE)
    assert fault.startswith("memory, MB:")
    [fault] = unmet(drifts(samples(descriptors=40.0), BOUNDS), Counter(), BEFORE, BEFORE)
    assert fault.startswith("descriptors:")


def test_calls_and_greenlets_that_stay_are_named() -> None:
    assert "3 calls" in unmet([], Counter(), BEFORE, {"calls": 3.0, "greenlets": 30.0})[0]
    assert "30 after" in unmet([], Counter(), BEFORE, {"calls": 0.0, "greenlets": 30.0})[0]


def test_a_full_core_is_no_verdict() -> None:
    calm, busy = {"core used, %": 50.0}, {"core used, %": 97.0}
    assert not full([calm] * 18 + [busy] * 2)
    assert full([calm] * 17 + [busy] * 3)


def test_a_wrong_answer_is_named_with_its_number() -> None:
    assert unmet([], Counter({"whole: 502": 7}), BEFORE, BEFORE) == ["7 times whole: 502"]


def test_the_load_holds_streams_wholes_embeddings_messages_and_errors() -> None:
    assert {kind.path for kind in KINDS} == {"/v1/chat/completions", "/v1/embeddings", "/v1/messages"}
    assert any(kind.last_words for kind in KINDS)
    assert any(200 not in kind.statuses for kind in KINDS)
