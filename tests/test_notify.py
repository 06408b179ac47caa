"""Notices of budgets: signed, sent again until they are taken, and to no place where they may not go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import select

from gateway import notify
from gateway.core.rules import BUDGET, USD, Match, Rule
from gateway.notify import PAUSES_S, Notifier, Refused, is_refused, post
from gateway.secret import Secret
from gateway.storage.database import Database
from gateway.storage.migrate import upgrade
from gateway.storage.notices import Notices
from gateway.storage.tables import notices
from tests.fakes.receiver import Receiver, Told

KEY = b"k" * 32
SECRET = Secret("whsec_" + base64.b64encode(KEY).decode())
PERIOD = (1_761_955_200.0, 1_764_547_200.0)


def budget(webhook: str | None, **more: Any) -> Rule:
    given = {"measure": USD, "most": 50_000_000, "period": "month", "webhook": webhook, **more}
    return Rule("bud_4f9k2m7x0a1b", BUDGET, match=Match(), each=("key",), name="shop", soft=0.8, **given)


class Desk:
    """A database, and notifiers on it."""

    def __init__(self, folder: Path) -> None:
        upgrade(folder / "gateway.db")
        self.database = Database(folder / "gateway.db", patience_s=1)
        self.notices = Notices(self.database)
        self.made: list[Notifier] = []

    def notifier(self, secret: Secret | None = SECRET, *, start: bool = True, **more: Any) -> Notifier:
        one = Notifier(self.notices, secret, **{"pauses_s": (0.05,) * 20, "timeout_s": 1.0, **more})
        self.made.append(one)
        if start:
            one.start()
        return one

    def wait_until(self, so: Callable[[], bool]) -> None:
        until_s = time.monotonic() + 20
        while not so():
            assert time.monotonic() < until_s
            time.sleep(0.02)

    def wait_until_empty(self) -> None:
        self.wait_until(lambda: not any(one._waiting for one in self.made) and self.notices.due_s() is None)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    for one in made.made:
        one.close()
    made.database.release()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def is_signed(told: Told) -> bool:
    """Whether a notice is signed as the specification says, by what its receiver can see."""
    signed = f"{told.headers['webhook-id']}.{told.headers['webhook-timestamp']}.".encode() + told.body
    good = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    return f"v1,{good}" in told.headers["webhook-signature"].split(" ")


def test_a_notice_says_which_budget_and_is_signed(desk: Desk, receiver: Receiver) -> None:
    desk.notifier().soft(budget(receiver.url), ["k1"], 41_250_000, 50_000_000, PERIOD)
    [told] = receiver.wait_for(1)
    assert is_signed(told)
    assert told.path == "/hook?a=b"
    assert told.headers["content-type"] == "application/json"
    assert told.headers["host"] == f"localhost:{receiver.server_port}"
    assert abs(int(told.headers["webhook-timestamp"]) - time.time()) < 30
    document = json.loads(told.body)
    assert document.pop("at") == pytest.approx(time.time(), abs=30)
    assert document == {
        "id": told.headers["webhook-id"],
        "type": "budget.soft_threshold",
        "rule": {"id": "bud_4f9k2m7x0a1b", "name": "shop", "measure": "usd", "soft": 0.8},
        "subject": {"key": "k1"},
        "used_usd": "41.25",
        "most_usd": "50",
        "period": {"name": "month", "start": PERIOD[0], "end": PERIOD[1]},
    }
    desk.wait_until_empty()
    assert len(receiver.told) == 1


def test_of_tokens_the_notice_says_tokens(desk: Desk, receiver: Receiver) -> None:
    rule = budget(receiver.url, measure="tokens", most=100, period="total")
    desk.notifier().soft(rule, ["k1"], 81, 100, (0.0, None))
    document = json.loads(receiver.wait_for(1)[0].body)
    assert (document["used_tokens"], document["most_tokens"], document["period"]["end"]) == (81, 100, None)
    assert "used_usd" not in document


def test_a_budget_without_a_webhook_tells_nobody(desk: Desk) -> None:
    one = desk.notifier(start=False)
    one.soft(budget(None), ["k1"], 1, 2, PERIOD)
    assert not one._waiting


@pytest.mark.parametrize("statuses", [[500, 503, 204], [404, 200], [301, 201], [429, 202]])
def test_one_that_is_not_taken_comes_again_under_the_same_id(
    desk: Desk, receiver: Receiver, statuses: list[int]
) -> None:
    receiver.statuses, receiver.headers = statuses, {"Location": receiver.url.replace("/hook", "/elsewhere")}
    desk.notifier().soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    told = receiver.wait_for(len(statuses))
    desk.wait_until_empty()
    assert len(receiver.told) == len(statuses)
    assert {one.headers["webhook-id"] for one in told} == {json.loads(told[0].body)["id"]}
    assert len({one.body for one in told}) == 1
    assert all(map(is_signed, told))
    assert {one.path for one in told} == {"/hook?a=b"}, "no redirect is followed"


def test_a_receiver_that_is_away_gets_it_later(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    desk.notifier().soft(budget(f"http://127.0.0.1:{port}/"), ["k1"], 1, 2, PERIOD)
    desk.wait_until(lambda: any(row.tries > 1 for row in rows(desk)))
    late = Receiver(port=port)
    [told] = late.wait_for(1)
    assert is_signed(told)
    desk.wait_until_empty()
    late.close()


def rows(desk: Desk) -> Any:
    return desk.database.read(lambda connection: connection.execute(select(notices)).all())


def test_pauses_grow_and_come_to_ten_minutes() -> None:
    assert list(PAUSES_S) == sorted(PAUSES_S)
    assert 500 < sum(PAUSES_S) < 700


def test_after_the_last_pause_it_is_given_up_loudly(
    desk: Desk, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [500]
    desk.notifier(pauses_s=(0.01, 0.02)).soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    receiver.wait_for(3)
    desk.wait_until_empty()
    assert len(receiver.told) == 3
    [given_up] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert given_up.message == "a notice is given up"
    fields = given_up.fields  # type: ignore[attr-defined]
    assert (fields["host"], fields["tries"], fields["why"]) == ("localhost", 3, "the answer is 500")
    assert "/hook" not in caplog.text + json.dumps([record.fields for record in caplog.records])  # type: ignore[attr-defined]


def test_what_a_restart_finds_is_sent(desk: Desk, receiver: Receiver) -> None:
    first = desk.notifier(start=False)
    first.soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    first.close()
    assert receiver.told == []
    assert desk.notices.due_s() is not None
    desk.notifier()
    assert is_signed(receiver.wait_for(1)[0])
    desk.wait_until_empty()


def test_after_the_end_nothing_is_lost_without_a_word(
    desk: Desk, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    one = desk.notifier()
    one.close()
    one.close()
    one.soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    assert [record.message for record in caplog.records] == ["a notice is lost: the gateway has stopped"]


def test_when_too_many_wait_the_next_is_refused_loudly(
    desk: Desk, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_MOST_WAITING", 2)
    one = desk.notifier(start=False)
    for _ in range(3):
        one.soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    assert [record.message for record in caplog.records] == ["a notice is lost: too many wait"]
    one.start()
    receiver.wait_for(2)
    desk.wait_until_empty()


def test_while_the_database_is_away_notices_wait_and_telling_waits_for_nothing(
    desk: Desk, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_RETRY_S", 0.05)
    (tmp_path / "gateway.db").rename(tmp_path / "aside.db")
    one = desk.notifier()
    began_s = time.monotonic()
    one.soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    assert time.monotonic() - began_s < 0.2
    time.sleep(0.3)
    assert receiver.told == []
    (tmp_path / "aside.db").rename(tmp_path / "gateway.db")
    receiver.wait_for(1)


def test_what_cannot_be_kept_at_the_end_is_lost_loudly(
    desk: Desk, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = desk.notifier(start=False)
    one.soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    (tmp_path / "gateway.db").rename(tmp_path / "aside.db")
    one.close()
    assert "a notice is lost: it could not be kept" in [record.message for record in caplog.records]


def test_without_a_secret_a_notice_is_not_signed_and_the_operator_is_told_once(
    desk: Desk, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    one = desk.notifier(secret=None)
    for _ in range(2):
        one.soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    for told in receiver.wait_for(2):
        assert "webhook-signature" not in told.headers
        assert told.headers["webhook-id"]
    assert len([record for record in caplog.records if "not signed" in record.message]) == 1


def test_nothing_runs_before_the_start(desk: Desk) -> None:
    threads = threading.active_count()
    one = desk.notifier(start=False)
    assert threading.active_count() == threads
    one.start()
    one.start()
    assert threading.active_count() == threads + 1


# Where nothing is sent.


@pytest.mark.parametrize(
    ("address", "plain", "refused"),
    [
        ("203.0.113.7", False, False),
        ("10.0.0.1", False, False),
        ("127.0.0.1", False, False),
        ("2001:db8::1", False, False),
        ("169.254.169.254", False, True),
        ("169.254.0.1", False, True),
        ("fe80::1", False, True),
        ("fe80::1%eth0", False, True),
        ("febf::1", False, True),
        ("::ffff:169.254.169.254", False, True),
        ("64:ff9b::a9fe:a9fe", False, True),
        ("2002:a9fe:a9fe::1", False, True),
        ("fd00:ec2::254", False, True),
        ("100.100.100.200", False, True),
        ("168.63.129.16", False, True),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("224.0.0.1", False, True),
        ("ff02::1", False, True),
        ("127.0.0.1", True, False),
        ("::1", True, False),
        ("10.0.0.1", True, True),
        ("203.0.113.7", True, True),
        ("169.254.169.254", True, True),
    ],
)
def test_a_machines_own_credentials_are_out_of_reach(address: str, plain: bool, refused: bool) -> None:
    assert is_refused(address, plain=plain) is refused


def answering(*addresses: str) -> Callable[..., Any]:
    """A name server that knows every name by these addresses."""

    def look_up(_host: str, port: int, **_more: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return look_up


def test_a_name_that_leads_to_metadata_is_refused_when_it_is_sent(
    desk: Desk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, place: opened.append(place))
    for found in (["169.254.169.254"], ["127.0.0.1", "169.254.169.254"]):
        monkeypatch.setattr(socket, "getaddrinfo", answering(*found))
        with pytest.raises(Refused):
            post("https://hooks.example.com/x", b"{}", {}, 1)
    monkeypatch.setattr(socket, "getaddrinfo", answering("203.0.113.7"))
    with pytest.raises(Refused):
        post("http://localhost/x", b"{}", {}, 1)
    assert opened == []
    desk.notifier(pauses_s=()).soft(budget("http://localhost/x"), ["k1"], 1, 2, PERIOD)
    desk.wait_until_empty()
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "nothing is sent to" in record.fields["why"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("address", ["ftp://localhost/", "http://hooks.example.com/", "https://a@b/"])
def test_an_address_that_no_budget_can_have_is_refused(address: str) -> None:
    with pytest.raises(Refused):
        post(address, b"{}", {}, 1)


def test_a_name_that_can_be_none_is_given_up_and_the_next_is_told(desk: Desk, receiver: Receiver) -> None:
    one = desk.notifier(pauses_s=())
    for host in ("a..b", "x" * 70, ".example.com"):
        one.soft(budget(f"https://{host}/"), ["k1"], 1, 2, PERIOD)
    one.soft(budget(receiver.url), ["k1"], 1, 2, PERIOD)
    receiver.wait_for(1)
    desk.wait_until_empty()


def test_the_name_is_looked_up_once_and_the_connection_goes_to_what_was_checked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look_up(host: str, port: int, **_more: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        return answering("127.0.0.1")(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert post(receiver.url, b"{}", {}, 5) == 204
    assert asked == ["localhost"]


def test_a_proxy_of_the_environment_is_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(receiver.url, b"{}", {}, 5) == 204


def test_a_receiver_that_drips_its_answer_is_left_in_time(receiver: Receiver) -> None:
    receiver.drip_s = 0.2
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        post(receiver.url, b"{}", {}, 0.7)
    assert time.monotonic() - began_s < 4


def test_a_receiver_that_says_nothing_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            post(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"{}", {}, 0.5)
        assert time.monotonic() - began_s < 4


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def guarded(authority: trustme.CA) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    made = Receiver(context)
    yield made
    made.close()


def test_a_receivers_certificate_has_to_be_its_own(
    guarded: Receiver, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        post(guarded.url, b"{}", {}, 5)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert post(guarded.url, b"{}", {}, 5) == 204
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        post(guarded.url.replace("localhost", "127.0.0.1"), b"{}", {}, 5)
    assert len(guarded.told) == 1
