"""Counters on Redis: what a call may wait, what others pay for a server that is away, and how it comes back."""

from __future__ import annotations

import logging
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from gateway.core.windows import Claim, Window
from gateway.errors import StoreUnavailable
from gateway.secret import Secret
from gateway.storage.counters import Counters
from gateway.storage.faults import StorageFailed
from gateway.storage.redis import RedisCounters
from gateway.storage.redis_link import RedisLink
from tests.fakes.stores import PASSWORD, Redis, redis_programs
from tests.storage.stores import claim

#: What a verb may take, and what the machine that runs the tests may add.
BOUND_S = 0.1 + 0.15


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Redis]:
    """A server of the test's own, which may be stopped and paused."""
    made = Redis(tmp_path, redis_programs()[request.param])
    made.start()
    yield made
    made.stop()


@pytest.fixture
def counters(server: Redis) -> Iterator[Counters]:
    made = RedisCounters(Secret(server.url))
    made.start()
    back_within(5, lambda: made.add("warm", 1, 60))
    yield made
    made.close()


@pytest.fixture
def patient(server: Redis) -> Iterator[Counters]:
    """For what is not about time, on machines on which the server does not get its turn at once."""
    made = RedisCounters(Secret(server.url), timeout_s=10)
    made.start()
    made.add("warm", 1, 60)
    yield made
    made.close()


@contextmanager
def unavailable(most_s: float = BOUND_S) -> Iterator[None]:
    began_s = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        yield
    assert time.monotonic() - began_s <= most_s
    assert isinstance(caught.value.__cause__, Exception)
    said = str(caught.value.__cause__)
    assert said.startswith("redis://127.0.0.1:")
    assert not any(word in said for word in (PASSWORD, "\n"))


def back_within(most_s: float, ask: Callable[[], object]) -> None:
    end_s = time.monotonic() + most_s
    while True:
        try:
            ask()
            return
        except StoreUnavailable:
            assert time.monotonic() < end_s, "it is not back"
            time.sleep(0.02)


VERBS: dict[str, Callable[[Counters], object]] = {
    "reserve": lambda it: it.reserve([claim(), claim(subject="b")], 45),
    "renew": lambda it: it.renew([f"{number:032x}" for number in range(2000)], 45),
    "look": lambda it: it.look([claim()]),
    "add": lambda it: it.add("a", 1, 60),
    "get": lambda it: it.get("a"),
    "fetch": lambda it: it.fetch(["a"]),
    "swap": lambda it: it.swap("a", None, "x", 60),
}


@pytest.mark.parametrize("ask", VERBS.values(), ids=VERBS)
def test_a_server_that_swallows_what_it_is_sent_costs_one_call_100_ms_and_the_next_nothing(
    ask: Callable[[Counters], object], server: Redis, counters: Counters
) -> None:
    made = counters.reserve([claim()], 45).reservation
    assert made is not None
    server.pause()
    with unavailable():
        ask(counters)
    began_s = time.monotonic()
    for _ in range(200):
        with unavailable():
            counters.settle(made, [1])
    assert time.monotonic() - began_s < 0.5, "200 calls"
    server.resume()
    back_within(5, lambda: counters.settle(made, [1]))


def test_many_calls_that_meet_a_silent_server_at_once_wait_side_by_side(server: Redis, counters: Counters) -> None:
    server.pause()
    took: list[float] = []

    def ask() -> None:
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            counters.add("a", 1, 60)
        took.append(time.monotonic() - began_s)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    server.resume()
    assert len(took) == 40
    assert max(took) < 0.6


def test_a_server_that_is_stopped_fails_at_once_and_starts_empty(
    server: Redis, patient: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    made = patient.reserve([claim(10)], 45).reservation
    assert made is not None
    with caplog.at_level(logging.INFO, "gateway.storage"):
        server.stop()
        for _ in range(50):
            with unavailable():
                patient.add("a", 1, 60)
        server.start()
        back_within(5, lambda: patient.add("a", 1, 60))
    assert patient.renew([made.id], 45) == set(), "it kept nothing"
    assert patient.settle(made, [4]) is True, "and what was used is charged"
    assert patient.look([claim()])[0].used == 4
    said = [record.message for record in caplog.records]
    assert said == ["the store of limits is away", "the store of limits is back"], "once each"
    assert PASSWORD not in caplog.text


def test_connections_that_the_server_has_closed_cost_nobody_a_call(server: Redis, patient: Counters) -> None:
    with server.client() as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    assert patient.add("a", 1, 60) == 1


def test_a_server_that_forgets_its_scripts_is_told_them_again(server: Redis, patient: Counters) -> None:
    with server.client() as admin:
        admin.script_flush()
    assert patient.add("a", 1, 60) == 1


class Babbler(socketserver.StreamRequestHandler):
    """Answers whatever it is asked by what its server's `says` is: `[b"5"]` at first."""

    def handle(self) -> None:
        while self.request.recv(65_536):
            self.request.sendall(self.server.says)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "says", [b"!?\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$x\r\n", b":x\r\n", b"*x\r\n", b"\0\xff"]
)
def test_a_server_that_speaks_something_else_is_away_until_it_speaks_redis(says: bytes) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Babbler) as server:
        server.daemon_threads = True
        server.says = speaks = b"*1\r\n$1\r\n5\r\n"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        counters = RedisCounters(Secret(f"redis://127.0.0.1:{server.server_address[1]}"), timeout_s=0.5)
        counters.start()
        back_within(5, lambda: counters.get("a"))
        server.says = says  # type: ignore[attr-defined]
        for _ in range(3):  # also while it is connected to anew
            with unavailable(1.5):
                counters.get("a")
            with pytest.raises(StoreUnavailable):
                counters.check()
            time.sleep(0.6)
        server.says = speaks  # type: ignore[attr-defined]
        back_within(5, lambda: counters.get("a"))
        assert counters.get("a") == 5
        counters.close()
        server.shutdown()


def test_a_server_that_takes_no_writes_is_away_until_it_does(server: Redis, patient: Counters) -> None:
    with server.client() as admin:
        admin.replicaof("127.0.0.1", "1")
        with unavailable():
            patient.add("a", 1, 60)
        with unavailable(0.02):
            patient.get("a")
        admin.replicaof("NO", "ONE")
    back_within(5, lambda: patient.add("a", 1, 60))


def test_a_server_that_is_full_is_away_until_it_is_not(server: Redis, patient: Counters) -> None:
    with server.client() as admin:
        admin.config_set("maxmemory", 1)
        with unavailable():
            patient.add("a", 1, 60)
        admin.config_set("maxmemory", 0)
    back_within(5, lambda: patient.add("a", 1, 60))


def test_a_wrong_password_is_told_and_not_shown(server: Redis) -> None:
    counters = RedisCounters(Secret(server.url.replace(PASSWORD, "hunter2-wrong")))
    with pytest.raises(StoreUnavailable) as caught:
        counters.check()
    assert "hunter2" not in str(caught.value.__cause__)
    assert "password" in str(caught.value.__cause__)
    with unavailable():
        counters.add("a", 1, 60)
    counters.close()


def test_nothing_survives_for_longer_than_it_is_needed(server: Redis, patient: Counters) -> None:
    short = [claim(length_s=0.06), claim(subject="b", length_s=0.06)]
    for number in range(20):
        made = patient.reserve(short, 0.05).reservation
        patient.reserve([claim(1, None, f"s{number}", 0.06)], 0.05)
        if made is not None and number % 2:
            patient.settle(made, [1, 1])
        patient.add(f"n{number}", 1, 0.05)
        patient.swap(f"t{number}", None, "x", 0.05)
    time.sleep(0.3)
    patient.look([claim()])
    with server.client() as admin:
        kept = {key.decode() for key in admin.scan_iter(count=1000)} - {"gateway:n:warm"}
        ends = [admin.pttl(key) for key in kept]
    assert {key.rpartition(":")[0] for key in kept} <= {"gateway:r", "gateway"}
    assert all(0 < end <= 60_000 for end in ends), "that a reservation was settled is known for a minute"


def test_every_key_has_the_prefix(server: Redis, patient: Counters) -> None:
    patient.reserve([claim()], 45)
    patient.swap("t", None, "x", 60)
    with server.client() as admin:
        keys = [key.decode() for key in admin.scan_iter()]
    assert len(keys) >= 5
    assert [key for key in keys if not key.startswith("gateway:")] == []


def test_after_close_nothing_is_open_and_nothing_is_asked(server: Redis) -> None:
    before = set(threading.enumerate())
    counters = RedisCounters(Secret(server.url), timeout_s=10)
    counters.start()
    counters.add("a", 1, 60)
    assert "redis-link" in [thread.name for thread in set(threading.enumerate()) - before]
    counters.close()
    with unavailable():
        counters.add("a", 1, 60)
    assert "redis-link" not in [thread.name for thread in set(threading.enumerate()) - before]
    with server.client() as admin:
        assert len(admin.client_list()) == 1


def test_no_more_than_10_connections_are_opened_and_all_are_used_again(server: Redis, patient: Counters) -> None:
    def ask() -> None:
        for _ in range(30):
            patient.add("a", 1, 60)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert patient.get("a") == 480
    with server.client() as admin:
        assert 2 <= len(admin.client_list()) <= 11, "one is the test's"


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, os, signal, sys, time
from gateway.errors import StoreUnavailable
from tests.storage.stores import claim, open_counters
counters = open_counters(sys.argv[1], timeout_s=0.09); counters.start()
def sure(ask):
    end = time.monotonic() + 5
    while True:
        try:
            return ask()
        except StoreUnavailable:
            assert time.monotonic() < end; gevent.sleep(0.05)
sure(lambda: counters.add("warm", 1, 60))
server = int(sys.argv[2])
gaps, done = [], []
def tick():
    while not done:
        before = time.monotonic(); gevent.sleep(0.005); gaps.append(time.monotonic() - before)
ticker = gevent.spawn(tick)
asked = [claim(1, 10, "g"), claim(1, None, "all")]
jobs = [gevent.spawn(sure, lambda: counters.reserve(asked, 45)) for _ in range(200)]
gevent.joinall(jobs)
had = sum(job.value.reservation is not None for job in jobs)
os.kill(server, signal.SIGSTOP)
def slow():
    began = time.monotonic()
    try:
        counters.add("a", 1, 60)
    except StoreUnavailable:
        return time.monotonic() - began
waits = [gevent.spawn(slow) for _ in range(50)]
gevent.joinall(waits); gevent.sleep(1.5)
os.kill(server, signal.SIGCONT)
sure(lambda: counters.add("a", 1, 60))
killed = [gevent.spawn(counters.add, "a", 0, 60) for _ in range(10)]
gevent.sleep(0); gevent.killall(killed)
told = [sure(lambda: counters.add("k", 1, 60)) for _ in range(39)]
same = told == sorted(set(told))
done.append(True); ticker.join()
print(had, max(wait.value for wait in waits), max(gaps), same)
counters.close()
"""


def test_under_gevent_the_hub_turns_while_the_server_is_silent(server: Redis) -> None:
    assert server.pid is not None
    command = [sys.executable, "-c", GEVENT, server.url, str(server.pid)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    had, longest_wait_s, longest_gap_s, same = found.stdout.split()
    assert same == "True", "an answer to one that was killed is nobody else's"
    assert 5 <= int(had) <= 10, "one whose answer came too late has it until its lease ends"
    assert float(longest_wait_s) < 0.4
    assert float(longest_gap_s) < 0.8, "it was silent for 1.5 s"


# Addresses.


@pytest.mark.parametrize("address", ["", "http://host", "redis://host:x", "redis://:hunter2@host/0?nonsense=1"])
def test_what_is_no_address_is_refused_without_being_told(address: str) -> None:
    with pytest.raises(StorageFailed, match="REDIS_URL: is not an address") as caught:
        RedisLink(Secret(address))
    assert "hunter2" not in str(caught.value)


def test_tls_is_spoken_where_the_address_says_so_and_the_certificate_is_checked(server: Redis, tmp_path: Path) -> None:
    authority = trustme.CA()
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=carry, args=(listener, context, server.port), daemon=True).start()
        address = server.url.replace("redis://", "rediss://").replace(str(server.port), str(listener.getsockname()[1]))
        RedisCounters(Secret(f"{address}?ssl_ca_certs={trusted}")).check()
        with pytest.raises(StoreUnavailable) as caught:
            RedisCounters(Secret(address)).check()
        assert "certificate" in str(caught.value.__cause__).lower()


def carry(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    """Take TLS off two connections, one after the other, and pass on what comes, a request at a time."""
    for _ in range(2):
        plain, _address = listener.accept()
        try:
            with (
                context.wrap_socket(plain, server_side=True) as caller,
                socket.create_connection(("127.0.0.1", port)) as server,
            ):
                while asked := caller.recv(65536):
                    server.sendall(asked)
                    caller.sendall(server.recv(65536))
        except OSError:
            plain.close()


def test_a_unix_socket_can_be_named(tmp_path: Path) -> None:
    at = tmp_path / "s"
    server = Redis(tmp_path, redis_programs()["valkey"], ["--unixsocket", str(at)])
    server.start()
    try:
        counters = RedisCounters(Secret(f"unix://:{PASSWORD}@{at}"), timeout_s=10)
        assert counters.add("a", 1, 60) == 1
        assert counters.name == f"unix:{at}"
        counters.close()
    finally:
        server.stop()


def test_a_window_that_is_used_is_kept_for_its_length(server: Redis, patient: Counters) -> None:
    month = Window(30 * 86_400.0)
    patient.reserve([claim(1, None, "month", month.length_s)], 45)
    with server.client() as admin:
        (key,) = admin.scan_iter("gateway:c:month*")
        assert month.keep_ms - 10_000 < admin.pttl(key) <= month.keep_ms


def test_a_counter_that_the_server_dropped_is_opened_with_what_is_held_of_it(server: Redis, patient: Counters) -> None:
    budget = Claim("budget/1", Window(None), 4, 100, opened=True)
    assert patient.open(budget, 10)
    under_way = patient.reserve([budget], 45).reservation
    assert under_way is not None
    with server.client() as client:
        assert client.delete(f"gateway:c:{budget.counter}") == 1
    assert patient.reserve([budget], 45).standings[0].missing
    assert patient.open(budget, 10)
    assert patient.look([budget])[0].used == 14
    assert patient.settle(under_way, [1])
    assert patient.look([budget])[0].used == 11


def test_a_call_that_ends_after_the_server_lost_all_makes_no_counter_that_others_would_take_for_opened(
    server: Redis, patient: Counters
) -> None:
    budget = Claim("budget/1", Window(None), 4, 100, opened=True)
    patient.open(budget, 10)
    under_way = patient.reserve([budget], 45).reservation
    assert under_way is not None
    with server.client() as client:
        client.flushall()
    patient.settle(under_way, [3])
    assert patient.look([budget])[0].missing
