"""One thread notices callers that left and calls past their deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.core.calls import Cancellation
from gateway.watcher import Watcher

FAR_S = 1000.0


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher(tick_s=0.02)
    made.open()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The caller's connection as the server holds it, and the caller's own end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
        with served, caller:
            yield served, caller


def soon(holds: Callable[[], object], within_s: float = 1.0) -> bool:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if holds():
            return True
        time.sleep(0.005)
    return False


def later(seconds: float) -> float:
    return time.monotonic() + seconds


def test_a_caller_that_closes_is_noticed(watcher: Watcher, pair: tuple[socket.socket, socket.socket]) -> None:
    served, caller = pair
    stopped = Cancellation()
    watch = watcher.watch(stopped, later(FAR_S), served)
    time.sleep(0.1)
    assert stopped.reason is None
    caller.close()
    assert soon(lambda: stopped.reason == "caller_gone")
    watch.end()


def test_a_caller_that_resets_is_noticed(watcher: Watcher, pair: tuple[socket.socket, socket.socket]) -> None:
    served, caller = pair
    stopped = Cancellation()
    watch = watcher.watch(stopped, later(FAR_S), served)
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    caller.close()
    assert soon(lambda: stopped.reason == "caller_gone")
    watch.end()


def test_a_caller_that_had_left_before_is_noticed(watcher: Watcher, pair: tuple[socket.socket, socket.socket]) -> None:
    served, caller = pair
    caller.close()
    time.sleep(0.05)
    stopped = Cancellation()
    watch = watcher.watch(stopped, later(FAR_S), served)
    assert soon(lambda: stopped.reason == "caller_gone")
    watch.end()


def test_a_request_that_was_sent_ahead_is_left_alone_and_not_read(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket]
) -> None:
    served, caller = pair
    stopped = Cancellation()
    watch = watcher.watch(stopped, later(FAR_S), served)
    caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
    time.sleep(0.15)
    assert stopped.reason is None
    assert served.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    watch.end()


def test_a_connection_is_watched_again_for_its_next_call(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket]
) -> None:
    served, caller = pair
    for _ in range(3):
        watcher.watch(Cancellation(), later(FAR_S), served).end()
    last = Cancellation()
    watch = watcher.watch(last, later(FAR_S), served)
    caller.close()
    assert soon(lambda: last.reason == "caller_gone")
    watch.end()


def test_a_call_that_has_ended_is_not_stopped_any_more(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket]
) -> None:
    served, caller = pair
    over = Cancellation()
    watch = watcher.watch(over, later(0.1), served)
    watch.end()
    watch.end()
    caller.close()
    time.sleep(0.2)
    assert over.reason is None
    assert watcher._watches == set()


def test_a_call_past_its_deadline_is_stopped_within_a_tick(watcher: Watcher) -> None:
    stopped = Cancellation()
    began_s = time.monotonic()
    watcher.watch(stopped, began_s + 0.15, None)
    assert soon(lambda: stopped.reason)
    assert 0.15 <= time.monotonic() - began_s < 0.5
    assert stopped.reason == "deadline"


def test_a_deadline_holds_also_while_a_caller_stays(
    watcher: Watcher, pair: tuple[socket.socket, socket.socket]
) -> None:
    stopped = Cancellation()
    watch = watcher.watch(stopped, later(0.1), pair[0])
    assert soon(lambda: stopped.reason == "deadline")
    watch.end()


def test_a_timer_runs_once_and_not_when_it_was_ended(watcher: Watcher) -> None:
    ran: list[str] = []
    watcher.timer(lambda: ran.append("kept"), later(0.05))
    watcher.timer(lambda: ran.append("ended"), later(0.05)).end()
    assert soon(lambda: ran)
    time.sleep(0.1)
    assert ran == ["kept"]


def test_a_socket_that_is_closed_already_harms_nobody(watcher: Watcher) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    stopped = Cancellation()
    watch = watcher.watch(stopped, later(0.05), ours)
    assert soon(lambda: stopped.reason == "deadline")
    watch.end()


def test_before_it_is_opened_calls_may_be_watched_and_only_their_deadlines_wait(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    unopened = Watcher(tick_s=0.02)
    stopped = Cancellation()
    watch = unopened.watch(stopped, later(0.0), pair[0])
    assert stopped.reason is None
    unopened.open()
    assert soon(lambda: stopped.reason == "deadline")
    watch.end()
    unopened.close()


def test_once_it_drains_calls_are_stopped_when_the_time_has_come_and_timers_are_not(watcher: Watcher) -> None:
    stopped, ran = Cancellation(), list[str]()
    watcher.watch(stopped, later(FAR_S), None)
    timer = watcher.timer(lambda: ran.append("ran"), later(FAR_S))
    assert not watcher.draining
    watcher.drain(later(0.15))
    assert watcher.draining
    time.sleep(0.05)
    assert stopped.reason is None
    assert soon(lambda: stopped.reason == "shutting_down")
    assert ran == []
    timer.end()


def test_closing_stops_the_thread_and_may_come_twice() -> None:
    made = Watcher(tick_s=0.02)
    made.open()
    thread = made._thread
    made.open()
    assert thread is not None
    assert made._thread is thread, "one thread, however often it is opened"
    assert thread.is_alive()
    made.close()
    made.close()
    assert not thread.is_alive()


def test_what_was_never_opened_can_be_closed() -> None:
    Watcher().close()


def test_many_calls_are_watched_at_once(watcher: Watcher) -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    calls = [Cancellation() for _ in pairs]
    watches = [watcher.watch(one, later(FAR_S), served) for one, (served, _) in zip(calls, pairs, strict=True)]
    for _, caller in pairs[::2]:
        caller.close()
    assert soon(lambda: all(one.reason for one in calls[::2]), 2.0)
    assert not any(one.reason for one in calls[1::2])
    for watch in watches:
        watch.end()
    for served, caller in pairs:
        served.close()
        caller.close()


def test_an_idle_watcher_spends_no_time() -> None:
    made = Watcher()
    made.open()
    ours, theirs = socket.socketpair()
    watch = made.watch(Cancellation(), later(FAR_S), ours)
    theirs.sendall(b"sent ahead")  # stays readable: must not make it spin
    before_s = time.process_time()
    time.sleep(0.5)
    spent_s = time.process_time() - before_s
    watch.end()
    made.close()
    ours.close()
    theirs.close()
    assert spent_s < 0.1
