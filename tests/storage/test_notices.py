"""Notices that are to be delivered, on every database."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from gateway.storage.database import Database
from gateway.storage.notices import Notice, Notices
from tests.storage.stores import NOW_S


def one(id: str, made_s: float = NOW_S) -> Notice:
    return Notice(id, "https://hooks.example.com/x", '{"a": "é"}', made_s)


@pytest.fixture
def notices(opened: Callable[..., Database]) -> Notices:
    return Notices(opened())


def test_the_one_that_is_due_for_longest_is_taken_first_and_by_one_alone(notices: Notices) -> None:
    assert notices.due_s() is None
    assert notices.claim(NOW_S, 60) is None
    notices.keep([])
    notices.keep([one("b", NOW_S + 1), one("a"), one("later", NOW_S + 100)])
    assert notices.due_s() == NOW_S
    assert notices.claim(NOW_S + 2, 60) == one("a")
    assert notices.claim(NOW_S + 2, 60) == one("b", NOW_S + 1)
    assert notices.claim(NOW_S + 2, 60) is None
    assert notices.due_s() == NOW_S + 62


def test_one_that_nobody_speaks_of_again_is_due_after_its_lease(notices: Notices) -> None:
    notices.keep([one("a")])
    notices.claim(NOW_S, 60)
    assert notices.claim(NOW_S + 59, 60) is None
    assert notices.claim(NOW_S + 60, 60) == one("a")


def test_one_that_was_sent_in_vain_is_due_later_and_counts_its_tries(notices: Notices) -> None:
    notices.keep([one("a")])
    notices.claim(NOW_S, 60)
    notices.put_off("a", NOW_S + 5)
    assert notices.claim(NOW_S + 4, 60) is None
    found = notices.claim(NOW_S + 5, 60)
    assert found is not None
    assert (found.id, found.tries) == ("a", 1)
    notices.forget("a")
    notices.forget("a")
    assert notices.due_s() is None


def test_many_workers_take_each_notice_once(opened: Callable[..., Database]) -> None:
    Notices(opened()).keep([one(f"n{number:02}") for number in range(20)])
    taken: list[str] = []

    def take() -> None:
        mine = Notices(opened(patience_s=30))
        while (notice := mine.claim(NOW_S, 600)) is not None:
            taken.append(notice.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"n{number:02}" for number in range(20)]
