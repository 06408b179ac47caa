"""Virtual keys at the real server with two workers: made elsewhere, known at once, revoked in both within 5 s."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from gateway.auth.pepper import kept_pepper
from gateway.core.keys import Pepper
from gateway.core.rights import Rights
from gateway.secret import Secret
from gateway.storage.audit import By
from gateway.storage.database import Database
from gateway.storage.directory import Directory
from gateway.storage.keys import Issued, NewKey
from tests.served.caller import CHAT, body
from tests.served.pairs import at_both
from tests.served.process import Served

#: What is promised, and what a busy machine may take on top of it to be asked and to answer.
FELT_WITHIN_S = 5.0
ADMIN_TOKEN = "admin-token-91c3e0"
BOSS = By("tests")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Served]:
    """The gateway with two workers, and a token for who manages it."""
    own = {**settings, "WEB_CONCURRENCY": "2", "GATEWAY_DEMO": "on", "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN}
    with Served(tmp_path_factory.mktemp("pair"), own) as served:
        yield served


@pytest.fixture(scope="module")
def directory(pair: Served) -> Directory:
    """What manages its keys, from another process."""
    return Directory.of(Database(pair.data_dir / "gateway.db"), lambda: Pepper(kept_pepper(pair.data_dir)))


def text(issued: Issued) -> str:
    assert issued.secret is not None
    return issued.secret.reveal()


def asked(client: httpx.Client, key: str, model: str = "demo/echo") -> httpx.Response:
    return client.post(CHAT, json=body(model), headers={"Authorization": f"Bearer {key}"})


@pytest.mark.parametrize("change", ["disabled", "deleted", "rotated", "narrowed"])
def test_what_is_revoked_is_felt_in_both_workers_within_five_seconds(
    pair: Served, directory: Directory, change: str
) -> None:
    issued = directory.keys.create(NewKey(change), BOSS)
    key, status = text(issued), 401
    with at_both(pair) as clients:
        assert len(pair.workers()) == 2
        assert {asked(client, key, "demo/echo").status_code for client in clients} == {200}
        match change:
            case "disabled":
                directory.keys.change(issued.key.id, BOSS, {"disabled": True})
            case "deleted":
                directory.keys.delete(issued.key.id, BOSS)
            case "rotated":
                directory.keys.rotate(issued.key.id, BOSS, 0)
            case "narrowed":
                directory.keys.change(issued.key.id, BOSS, {"rights": Rights(models=("openai/*",))})
                status = 403
        until_s = time.monotonic() + FELT_WITHIN_S
        while time.monotonic() < until_s:
            answers = {asked(client, key, "demo/echo").status_code for client in clients}
            if answers == {status}:
                break
        assert answers == {status}
        assert {asked(client, key, "demo/echo").status_code for client in clients} == {status}


def test_a_key_that_is_made_is_good_at_once_and_both_secrets_of_a_rotated_one_are(
    pair: Served, directory: Directory
) -> None:
    old = directory.keys.create(NewKey("at once"), BOSS)
    new = directory.keys.rotate(old.key.id, BOSS, 60)
    with at_both(pair) as clients:
        for issued in (old, new):
            assert {asked(client, text(issued)).status_code for client in clients} == {200}


def test_while_the_database_is_away_known_keys_go_on_and_no_good_key_is_told_that_it_is_wrong(
    pair: Served, directory: Directory
) -> None:
    known, new = (text(directory.keys.create(NewKey(name), BOSS)) for name in ("known", "new"))
    stranger = Pepper(Secret("a stranger's")).key("abcdef012345", bytes(32)).reveal()
    database = pair.data_dir / "gateway.db"
    aside = database.with_name("aside.db")
    with at_both(pair) as clients:
        assert {asked(client, known).status_code for client in clients} == {200}
        database.rename(aside)
        try:
            time.sleep(1.5)  # each worker has looked for changes, in vain
            assert {asked(client, known).status_code for client in clients} == {200}
            refused = asked(clients[0], new)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert asked(clients[0], stranger).status_code == 401
        finally:
            aside.rename(database)
        assert asked(clients[0], new).status_code == 200


def test_the_admin_token_calls_no_model(pair: Served) -> None:
    with httpx.Client(base_url=pair.url) as client:
        answer = asked(client, ADMIN_TOKEN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_permitted")


def test_no_key_is_in_any_file_or_line(pair: Served, directory: Directory) -> None:
    issued = directory.keys.create(NewKey("canary"), BOSS)
    key = text(issued)
    with httpx.Client(base_url=pair.url, headers={"Authorization": f"Bearer {key}"}) as client:
        for model in ("demo/echo", "nobody/at-all", key):
            client.post(CHAT, json=body(model, f"my key is {key}"))
        client.get(f"/v1/{key}")
    time.sleep(2)  # for the traces to be kept
    secret = key.rpartition("-")[2]
    files = {file.name: file.read_bytes() for file in pair.data_dir.rglob("*") if file.is_file()}
    files["log"] = pair.log.encode()
    assert [name for name, content in files.items() if secret.encode() in content] == []
    assert (pair.data_dir / "key-pepper").stat().st_mode & 0o777 == 0o600
