"""A row that makes the destination fail for ever is found and put aside; an outage puts nothing aside."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.core.calls import Parent
from gateway.tracing.backlog import some_waiting
from gateway.tracing.delivery import Piece, Rejected, Unavailable
from gateway.tracing.dispatch import Ending
from gateway.tracing.frames import dumps, row_frame
from gateway.tracing.keeping import Quarantine, put_aside
from gateway.tracing.record import Record
from gateway.tracing.room import SLACK_BYTES, used_bytes
from gateway.tracing.sender import Sender
from tests.fakes.destination import Recording, root, trace
from tests.tracing.test_sender import sender, spool, written


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    def rest(self: Ending, seconds: float) -> None:
        rests.append(seconds)
        assert len(rests) < 1000, "it is tried again for ever"

    monkeypatch.setattr(Ending, "rest", rest)


def poisoned(error: Exception, *ids: str) -> Recording:
    def fail(pieces: Sequence[Piece]) -> None:
        if any(piece.id in ids for piece in pieces):
            raise error

    return Recording(fail=fail)


@pytest.mark.parametrize("error", [Unavailable("/logs3: 500"), Unavailable("/logs3: 403 firewall", refused=True)])
@pytest.mark.parametrize("together", [True, False])
def test_a_row_on_which_the_destination_fails_holds_up_no_other(
    tmp_path: Path, error: Exception, together: bool
) -> None:
    ids = ["a", "b", "poison", "c", "d"]
    for group in [ids] if together else [[id] for id in ids]:
        written(tmp_path, *group)
    taken = poisoned(error, "poison")
    assert sender(tmp_path, taken).drain(10)
    assert {row["row"]["id"] for _path, row in put_aside(tmp_path)} == {"poison"}
    assert {"a", "b", "c", "d", "poison-0"} <= set(taken.rows)


def test_a_place_of_a_callers_on_which_the_destination_fails_holds_up_no_other(tmp_path: Path) -> None:
    made = spool(tmp_path)
    made.write(Record(trace("theirs").rows, Parent(object_id="\N{PILE OF POO}")))
    made.write(trace("ours"))
    made.close(0)
    taken = poisoned(Unavailable("500"), "theirs", "theirs-0")
    assert sender(tmp_path, taken).drain(10)
    assert {row["row"]["id"] for _path, row in put_aside(tmp_path)} == {"theirs", "theirs-0"}
    assert taken.order[-2:] == ["ours-0", "ours"]


def test_an_outage_puts_nothing_aside_however_long_it_is(tmp_path: Path) -> None:
    written(tmp_path, *(f"c{number}" for number in range(30)))
    written(tmp_path, "other")
    posts = 0

    def down(pieces: Sequence[Piece]) -> None:
        nonlocal posts
        posts += 1
        if posts <= 300:
            raise Unavailable("down")

    taken = Recording(fail=down)
    assert sender(tmp_path, taken).drain(20)
    assert not list(put_aside(tmp_path))
    assert len(taken.rows) == 62


def test_a_destination_that_fails_by_chance_puts_nothing_aside(tmp_path: Path) -> None:
    chance = random.Random(5)

    def flaky(pieces: Sequence[Piece]) -> None:
        if chance.random() < 0.3:
            raise Unavailable("500")

    for group in range(10):
        written(tmp_path, *(f"g{group}c{number}" for number in range(20)))
    taken = Recording(fail=flaky)
    assert sender(tmp_path, taken).drain(20)
    assert not list(put_aside(tmp_path))
    assert len(taken.rows) == 400


def test_who_asks_to_wait_is_asked_once(tmp_path: Path) -> None:
    written(tmp_path, "a")
    written(tmp_path, "b")
    posts: list[str] = []

    def limited(pieces: Sequence[Piece]) -> None:
        posts.append(pieces[0].id)
        if len(posts) <= 5:
            raise Unavailable("429", retry_after_s=1.0)

    assert sender(tmp_path, Recording(fail=limited)).drain(5)
    assert posts == ["a-0"] * 6 + ["b-0"]


def test_an_open_call_that_is_refused_is_not_put_aside_before_its_end(tmp_path: Path) -> None:
    def picky(pieces: Sequence[Piece]) -> None:
        if any(b'"open":true' in piece.row for piece in pieces):
            raise Rejected("no")

    taken = Recording(fail=picky)
    made = spool(tmp_path)
    made.begin(root("a"), None, 0)
    one = sender(tmp_path, taken, late_s=-1.0)
    assert one._is_sender()
    one._turn()
    made.write(trace("a"))
    one._turn()
    one._leave()
    assert not list(put_aside(tmp_path))
    assert "end" in taken.rows["a"]["metrics"]


def test_rows_that_wait_are_picked_from_anywhere_and_only_whole(tmp_path: Path) -> None:
    made = spool(tmp_path, segment_bytes=1 << 20)
    for number in range(300):
        made.write(trace(f"c{number}", "x" * 4000))
    made.begin(root("open"), None, 0)
    found = {piece.id for seed in range(60) for piece in some_waiting(tmp_path, random.Random(seed))}
    assert len(found) > 400
    assert "open" not in found
    assert some_waiting(tmp_path / "none", random.Random(1)) == []
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / f"{2:020d}-aaaaaaaa-000001.seg").write_bytes(row_frame("begin", "a", dumps(root("a"))))
    assert some_waiting(tmp_path / "s", random.Random(1)) == []


def test_who_has_rows_refused_on_purpose_leaves_half_of_the_spool_to_others(tmp_path: Path) -> None:
    cap_bytes = 8 << 20

    def refuses(pieces: Sequence[Piece]) -> None:
        if any(piece.to for piece in pieces):
            raise Rejected("no such project")

    for _ in range(20):
        hostile = spool(tmp_path, cap_bytes=cap_bytes)
        for number in range(20):
            hostile.write(Record(trace(f"h{number}", "x" * 20_000).rows, Parent(object_id="nowhere")))
        hostile.close(0)
        assert Sender(tmp_path, Recording(fail=refuses), name="t", cap_bytes=cap_bytes).drain(10)
    assert used_bytes(tmp_path) > cap_bytes // 3, "rows are put aside while there is room"
    honest = spool(tmp_path, cap_bytes=cap_bytes)
    while used_bytes(tmp_path) < cap_bytes - SLACK_BYTES - (1 << 20):
        honest.write(trace("ours", "x" * 20_000))
        assert honest.dropped_rows == 0
    assert not Quarantine(tmp_path, cap_bytes).add(Piece("a", b'{"x":"%s"}' % (b"y" * 100_000)), "bad")
