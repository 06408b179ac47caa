"""Work of several is done in one go, and each has what it asked for."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from gateway.storage.turns import Turns


class Work:
    """Doubles numbers; holds up while `go` is not set, and refuses what has a 13 in it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.began.set()
        assert self.go.wait(10)
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


def asking(turns: Turns[int, int], item: int, found: dict[int, object]) -> threading.Thread:
    def ask() -> None:
        try:
            found[item] = turns.do(item)
        except ValueError as error:
            found[item] = error

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def wait_for(turns: Turns[int, int], waiting: int) -> None:
    for _ in range(1000):
        if len(turns._waiting) == waiting:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{len(turns._waiting)} wait, not {waiting}")


def test_who_finds_nobody_at_work_begins_at_once() -> None:
    work = Work()
    work.go.set()
    turns = Turns(work, 10)
    assert [turns.do(item) for item in (1, 2)] == [2, 4]
    assert work.batches == [[1], [2]]


def test_what_comes_meanwhile_is_done_together_and_in_order_and_not_more_than_may_be() -> None:
    work, found = Work(), dict[int, object]()
    turns = Turns(work, 3)
    threads = [asking(turns, 0, found)]
    assert work.began.wait(10)
    for item in range(1, 6):
        threads.append(asking(turns, item, found))
        wait_for(turns, item)
    work.go.set()
    for thread in threads:
        thread.join(10)
    assert work.batches == [[0], [1, 2, 3], [4, 5]]
    assert found == {item: 2 * item for item in range(6)}
    assert turns.do(7) == 14, "nobody is left at work"


def test_a_failure_is_that_of_all_who_were_done_with_and_of_nobody_else() -> None:
    work, found = Work(), dict[int, object]()
    turns = Turns(work, 2)
    threads = [asking(turns, 0, found)]
    assert work.began.wait(10)
    for count, item in enumerate((1, 13, 2), 1):
        threads.append(asking(turns, item, found))
        wait_for(turns, count)
    work.go.set()
    for thread in threads:
        thread.join(10)
    assert (found[0], found[2]) == (0, 4)
    assert [str(found[item]) for item in (1, 13)] == ["thirteen", "thirteen"]


KILLED = """
from gevent import monkey
monkey.patch_all()
import gevent
from gateway.storage.turns import Turns
batches = []
def work(items):
    batches.append(list(items))
    gevent.sleep(0.1)
    return [2 * item for item in items]
turns = Turns(work, 2)
asked = [gevent.spawn(turns.do, item) for item in range(7)]
gevent.sleep(0.01)
asked[2].kill()  # it waits
gevent.sleep(0.11)
assert batches == [[0], [1, 3]], batches
asked[4].kill()  # it would lead next
asked[1].kill()  # it leads, and 3 is done with it
gevent.joinall(asked, timeout=5)
assert batches == [[0], [1, 3], [5, 6]], batches
assert [asked[item].value for item in (0, 5, 6)] == [0, 10, 12]
assert isinstance(asked[3].exception, InterruptedError)
assert turns.do(9) == 18
print("done")
"""


def test_one_that_is_killed_holds_nobody_up() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("killed", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_reaches_who_was_at_work(killed: type[BaseException]) -> None:
    def work(items: Sequence[int]) -> Sequence[int]:
        if items[0] < 0:
            raise killed
        return items

    turns = Turns(work, 2)
    with pytest.raises(killed):
        turns.do(-1)
    assert turns.do(1) == 1
