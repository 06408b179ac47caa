"""The database on a server: what is its own, and what becomes of work when the server does not do its part."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text

from gateway.secret import Secret
from gateway.storage.database import Database, StorageBusy, StorageError, StorageFailed
from tests.fakes.stores import PASSWORD, Postgres
from tests.storage.places import told
from tests.storage.ways import WAYS, Way

READ_ALL = text("SELECT count(*) FROM things")
PUT = text("INSERT INTO things (name) VALUES ('x')")


@pytest.fixture(scope="module")
def own_server(store_folder: Path) -> Iterator[Postgres]:
    """A server of these tests' own, which they stop and pause."""
    folder = store_folder / "faulty-postgres"
    folder.mkdir()
    server = Postgres(folder)
    server.start()
    with server.connect(server.make("faults").rpartition("/")[2]) as connection:
        connection.execute("CREATE TABLE things (id serial PRIMARY KEY, name text)")
    yield server
    server.stop()


@pytest.fixture
def server(own_server: Postgres) -> Iterator[Postgres]:
    with own_server.connect("faults") as connection:
        connection.execute("TRUNCATE things")
    yield own_server
    own_server.resume()


@pytest.fixture
def open_it(server: Postgres) -> Iterator[Callable[..., Database]]:
    made: list[Database] = []

    def open_it(patience_s: float = 2.0) -> Database:
        made.append(Database(Secret(server.address("faults")), patience_s=patience_s))
        return made[-1]

    yield open_it
    for database in made:
        database.release()


def count(connection: Connection) -> int:
    return int(connection.execute(READ_ALL).scalar_one())


def put(connection: Connection) -> None:
    connection.execute(PUT)


@contextmanager
def within(least_s: float, most_s: float) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    assert least_s <= time.monotonic() - began_s <= most_s


def test_a_host_is_looked_up_and_its_name_is_kept_for_its_certificate(server: Postgres) -> None:
    database = Database(Secret(server.address("faults").replace("127.0.0.1", "localhost")))
    assert database.read(lambda it: it.exec_driver_sql("SELECT 1").scalar_one()) == 1
    host = database.read(lambda it: it.connection.driver_connection.info.host)  # type: ignore[union-attr]
    database.release()
    assert host == "localhost"


def test_a_host_that_nobody_knows_cannot_be_reached() -> None:
    database = Database(Secret("postgresql+psycopg://u:hunter2@nowhere.invalid/name"))
    with pytest.raises(StorageFailed, match=r"postgresql://nowhere\.invalid/name: the server cannot be reached"):
        database.read(count)


@pytest.mark.parametrize("address", ["", "postgresql", "://", "postgresql+psycopg://u:hunter2@host:x/name"])
def test_what_is_no_address_is_refused_without_being_told(address: str) -> None:
    with pytest.raises(StorageFailed, match="is not an address") as caught:
        Database(Secret(address))
    assert "hunter2" not in str(caught.value)


def test_reading_writes_nothing(open_it: Callable[..., Database]) -> None:
    database = open_it()
    with pytest.raises(StorageFailed, match="is read-only"):
        database.read(put)
    assert database.read(count) == 0


def test_a_fault_shows_neither_sql_nor_content_nor_password(open_it: Callable[..., Database]) -> None:
    wrong = text("INSERT INTO nowhere VALUES (:secret)")
    with pytest.raises(StorageFailed, match="not those of this release") as caught:
        open_it().write(lambda connection: connection.execute(wrong, {"secret": "hunter2"}) and None)
    said = str(caught.value)
    assert not any(word in said for word in ("hunter2", "INSERT", "nowhere", PASSWORD, "\n"))
    assert caught.value.__suppress_context__


# Many at once.


def adding(connection: Connection) -> None:
    before = connection.execute(text("SELECT count(*) FROM things")).scalar_one()
    connection.execute(text("INSERT INTO things (name) VALUES (:n)"), {"n": str(before)})


@pytest.mark.parametrize("alone_on", [None, ["things"]], ids=["serializable", "alone"])
def test_writes_have_an_effect_as_if_one_came_after_the_other(
    alone_on: list[str] | None, open_it: Callable[..., Database]
) -> None:
    database, failed = open_it(20), list[StorageError]()

    def work() -> None:
        for _ in range(5):
            try:
                database.write(adding, alone_on=alone_on)
            except StorageError as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    names = database.read(lambda it: sorted(int(name) for name in it.scalars(text("SELECT name FROM things"))))
    assert names == list(range(30)), "each saw all that were before it"


def test_who_finds_no_connection_free_waits_a_second_and_is_told(open_it: Callable[..., Database]) -> None:
    database, begun = open_it(5), threading.Barrier(11)

    def hold(connection: Connection) -> None:
        begun.wait(10)
        connection.exec_driver_sql("SELECT pg_sleep(2.5)")

    holders = [threading.Thread(target=database.read, args=(hold,)) for _ in range(10)]
    for holder in holders:
        holder.start()
    begun.wait(10)
    with within(0.9, 1.9), pytest.raises(StorageBusy, match="all 10 connections were in use for 1 s"):
        database.read(count)
    for holder in holders:
        holder.join(10)
    assert database.read(count) == 0


def test_a_server_without_connections_is_busy_and_then_is_not(
    server: Postgres, open_it: Callable[..., Database]
) -> None:
    database = open_it()
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(server.connect("faults"))
        with pytest.raises(StorageBusy, match="the server has no connection free"):
            database.read(count)
    wait_until_it_reads(database)


def wait_until_it_reads(database: Database) -> None:
    end_s = time.monotonic() + 10
    while True:  # the server notices a little later that connections are gone
        try:
            database.read(count)
            return
        except StorageBusy:
            assert time.monotonic() < end_s
            time.sleep(0.05)


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    made: Way = request.param
    return made


COUNT, INSERT = "SELECT count(*) FROM things", "INSERT INTO things (name) VALUES ('x')"


def test_a_table_that_another_has_locked_is_waited_for_within_the_bound(
    way: Way, server: Postgres, open_it: Callable[..., Database]
) -> None:
    database = open_it(0.7)
    way.write(database, INSERT)
    with server.connect("faults") as other, other.transaction():
        other.execute("LOCK TABLE things IN ACCESS EXCLUSIVE MODE")
        for ask in (lambda: way.read(database, COUNT), lambda: way.write(database, INSERT)):
            with within(0.6, 2.0), pytest.raises(StorageBusy, match="held a lock"):
                ask()
    assert way.read(database, COUNT) == [[(1,)]]


def test_what_one_is_alone_on_is_waited_for_within_the_bound(way: Way, open_it: Callable[..., Database]) -> None:
    database, begun, may_end = open_it(0.7), threading.Event(), threading.Event()

    def hold(_connection: Connection) -> None:
        begun.set()
        may_end.wait(10)

    holder = threading.Thread(target=lambda: open_it(10).write(hold, alone_on=["b", "a"]))
    holder.start()
    assert begun.wait(10)
    with within(0.6, 2.0), pytest.raises(StorageBusy, match="held a lock"):
        way.write(database, INSERT, alone_on=["a", "c"])
    way.write(database, INSERT, alone_on=["c"])
    may_end.set()
    holder.join(10)
    way.write(database, INSERT, alone_on=["a", "b"])
    assert way.read(database, COUNT) == [[(2,)]]


def test_a_statement_that_takes_too_long_is_ended(way: Way, open_it: Callable[..., Database]) -> None:
    with within(1.2, 2.6), pytest.raises(StorageBusy, match="took too long"):
        way.read(open_it(0.3), "SELECT pg_sleep(30)")


# A server that goes away.


def test_connections_that_the_server_has_ended_cost_nobody_a_call(
    way: Way, server: Postgres, open_it: Callable[..., Database]
) -> None:
    database = open_it()
    # several are open, and each of them is dead
    with ThreadPoolExecutor(5) as threads:
        assert list(threads.map(lambda _: way.read(database, "SELECT 1 FROM pg_sleep(0.2)"), range(5)))
    with server.connect("postgres") as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'faults'")
    for _ in range(2):
        way.write(database, INSERT)
    assert way.read(database, COUNT) == [[(2,)]]


def test_work_whose_connection_breaks_is_tried_once_more(way: Way, open_it: Callable[..., Database]) -> None:
    runs: list[int] = []
    database = open_it()
    with pytest.raises(StorageFailed, match="stops or starts"):
        way.write(database, INSERT, "SELECT pg_terminate_backend(pg_backend_pid())", before=lambda: runs.append(1))
    assert len(runs) == 2
    assert way.read(database, COUNT) == [[(0,)]]


def test_a_connection_that_breaks_in_the_commit_is_not_tried_again(
    way: Way, server: Postgres, open_it: Callable[..., Database]
) -> None:
    with server.connect("faults") as admin:
        admin.execute(
            "CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$;"
            "CREATE CONSTRAINT TRIGGER leaving AFTER INSERT ON things DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION leave()"
        )
    runs: list[int] = []
    try:
        with pytest.raises(StorageFailed, match="broke in the commit: it may have been kept"):
            way.write(open_it(), INSERT, before=lambda: runs.append(1))
    finally:
        with server.connect("faults") as admin:
            admin.execute("DROP TRIGGER leaving ON things; DROP FUNCTION leave()")
    assert len(runs) == 1


def test_a_server_that_is_stopped_fails_at_once_and_serves_again_when_it_is_back(
    way: Way, server: Postgres, open_it: Callable[..., Database]
) -> None:
    database = open_it()
    way.write(database, INSERT)
    server.stop()
    for _ in range(3):
        with within(0, 1), pytest.raises(StorageFailed, match=r"cannot be reached|stops or starts"):
            way.read(database, COUNT)
    server.start()
    assert way.read(database, COUNT) == [[(1,)]]
    way.write(database, INSERT)
    assert way.read(database, COUNT) == [[(2,)]]


def test_a_server_that_says_nothing_is_given_up_within_the_bound(
    way: Way, server: Postgres, open_it: Callable[..., Database]
) -> None:
    database = open_it(0.5)
    way.write(database, INSERT)
    server.pause()
    with within(2.0, 4.5), pytest.raises(StorageFailed, match="cannot be reached"):
        way.read(database, COUNT)  # by the connection that was open
    with within(1.5, 3.5), pytest.raises(StorageFailed, match="cannot be reached"):
        way.read(database, COUNT)  # by a new one
    server.resume()
    assert way.read(database, COUNT) == [[(1,)]]


def test_the_ways_leave_a_connection_as_the_other_one_needs_it(open_it: Callable[..., Database]) -> None:
    database = open_it()
    for way in [*WAYS.values()] * 2:
        way.write(database, INSERT, alone_on=["a"])
        with pytest.raises(StorageFailed):
            way.write(database, INSERT, "INSERT INTO nothing_there VALUES (1)")
        assert len(way.read(database, COUNT)) == 1
    assert database.read(count) == 4


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, sys, time
from gateway.storage.database import Database, StorageBusy, StorageError
from tests.storage.places import place_of
database = Database(place_of(sys.argv[1]), patience_s=3)
gaps, done = [], []
def tick():
    while not done:
        before = time.monotonic(); gevent.sleep(0.01); gaps.append(time.monotonic() - before)
ticker = gevent.spawn(tick)
def sleep(connection):
    return connection.exec_driver_sql("SELECT 1 FROM pg_sleep(0.4)").scalar_one()
database.read(lambda it: it.exec_driver_sql("SELECT 1").all())
began = time.monotonic()
gevent.joinall(jobs := [gevent.spawn(database.read, sleep) for _ in range(10)])
took = time.monotonic() - began
killed = gevent.spawn(database.read, lambda it: it.exec_driver_sql("SELECT pg_sleep(60)").all())
gevent.sleep(0.2); killed.kill()
again = [database.read(lambda it: it.exec_driver_sql("SELECT 7").scalar_one()) for _ in range(12)]
done.append(True); ticker.join()
print([job.value for job in jobs] == [1] * 10, took, max(gaps), again == [7] * 12)
database.release()
"""


def test_under_gevent_ten_wait_at_once_and_the_hub_turns(postgres_address: Secret) -> None:
    command = [sys.executable, "-c", GEVENT, told(postgres_address)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    all_done, took_s, longest_s, again = found.stdout.split()
    assert (all_done, again) == ("True", "True"), "one that was killed in the middle leaves no half of an answer"
    assert float(took_s) < 2.5, "ten of 0.4 s, one after the other, would take 4"
    assert float(longest_s) < 0.3


FORKING = """
import os, sys
from gateway.storage.database import Database
from tests.storage.places import place_of
database = Database(place_of(sys.argv[1]))
work = lambda it: it.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
if (child := os.fork()) == 0:
    print(database.read(work), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(database.read(work))
database.release()
"""


def test_what_is_made_before_a_fork_opens_a_connection_of_its_own_after_it(postgres_address: Secret) -> None:
    command = [sys.executable, "-c", FORKING, told(postgres_address)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert len(set(found.stdout.split())) == 2
