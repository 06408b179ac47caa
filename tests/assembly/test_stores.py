"""The stores that the settings name."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway import assembly
from gateway.settings import Settings, SettingsError
from gateway.storage.audit import By
from gateway.storage.keys import NewKey
from gateway.storage.owned import RESPONSE, Owned
from gateway.storage.redis import RedisCounters
from gateway.storage.tabled import TableCounters
from tests.builders import settings

KEYS = ({}, {"BRAINTRUST_API_KEY": "hunter2"}, {"GATEWAY_LOCAL_TRACES": "off", "GATEWAY_STORED_RESPONSES_DAYS": "0"})


@pytest.mark.parametrize("environ", KEYS, ids=["nothing set", "a Braintrust key", "all turned off"])
def test_the_database_is_made_whatever_is_set(tmp_path: Path, environ: dict[str, str]) -> None:
    made = Settings.from_env(environ, tmp_path)
    assembly.migrate(made)
    objects = assembly.owned_objects(made)
    one = Owned(RESPONSE, "resp_1", "tok_a", "tok_a", "fast", "openai", "openai/gpt-test", time.time())
    objects.keep(one)
    assert objects.find(RESPONSE, "resp_1", "tok_a") == one
    assert stat.S_IMODE(made.database.stat().st_mode) == 0o600


@pytest.mark.parametrize("environ", KEYS, ids=["nothing set", "a Braintrust key", "all turned off"])
def test_a_database_that_cannot_be_made_is_a_fault_that_says_what_to_set(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / ".gateway").touch()
    with pytest.raises(SettingsError) as raised:
        assembly.migrate(Settings.from_env(environ, tmp_path))
    [fault] = raised.value.faults
    assert "gateway.db" in fault
    assert fault.endswith("set GATEWAY_DATA_DIR to another folder")


def test_stored_objects_have_the_bounds_of_the_settings(tmp_path: Path) -> None:
    environ = {"GATEWAY_STORED_RESPONSES_DAYS": "0.5", "GATEWAY_STORED_RESPONSES_MB": "2"}
    objects = assembly.owned_objects(Settings.from_env(environ, tmp_path))
    assert (objects._keep_s, objects._keep_bytes) == (43_200, 2 << 20)
    assert list(tmp_path.iterdir()) == [], "nothing is opened or made"
    assert not assembly.owned_objects(settings(GATEWAY_STORED_RESPONSES_DAYS="0")).keeps_documents


FORKING = """
from gevent import monkey; monkey.patch_all()
import os, sys, time
from pathlib import Path
from gateway import assembly
from gateway.settings import Settings
from gateway.storage.owned import Owned
made = Settings.from_env({"BRAINTRUST_API_KEY": "k"}, Path(sys.argv[1]))
assembly.migrate(made)
objects = assembly.owned_objects(made)
end_s = time.monotonic() + 5
while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < end_s:
    time.sleep(0.01)
print("native threads", len(os.listdir("/proc/self/task")), flush=True)
if (child := os.fork()) == 0:
    objects.keep(Owned("response", "r", "t", "c", "m", "p", "p/m", time.time(), "{}"))
    os._exit(0 if objects.find("response", "r", "t") else 1)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_the_master_leaves_no_thread_behind_and_a_worker_uses_the_database(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["native threads 1", "child 0"], done.stderr


@pytest.mark.parametrize("own", [{}, {"GATEWAY_KEY_PEPPER": "p" * 40}])
def test_a_key_that_one_process_makes_another_knows(tmp_path: Path, own: dict[str, str]) -> None:
    made = Settings.from_env(own, tmp_path)
    assembly.migrate(made)
    assert not (tmp_path / ".gateway" / "key-pepper").exists(), "who makes no keys needs none"
    secret = assembly.directory(made).keys.create(NewKey("one"), By("cli")).secret
    assert secret is not None
    gateway = assembly.build(made)
    assert gateway.authenticator.identify({"api-key": secret.reveal()}).key_name == "one"
    assert gateway.directory is not None
    assert [key.name for key in gateway.directory.keys.page().items] == ["one"]
    assert (tmp_path / ".gateway" / "key-pepper").exists() is not bool(own)
    gateway.authenticator.close()


def test_a_lost_pepper_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Settings.from_env({}, tmp_path)
    assembly.migrate(made)
    assembly.directory(made).keys.create(NewKey("one"), By("cli"))
    assembly.migrate(made)
    assert "pepper" not in caplog.text
    (made.data_dir / "key-pepper").unlink()
    assembly.migrate(made)
    assert "1 virtual keys are of no use: they were made with another pepper" in caplog.text
    (made.data_dir / "key-pepper").write_text("")
    with pytest.raises(SettingsError, match="holds no pepper"):
        assembly.migrate(made)


def test_the_backend_of_each_store_is_picked_by_its_address(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql://u:hunter2@127.0.0.2:9/name", "REDIS_URL": "redis://:hunter3@127.0.0.2:9/1"}
    alone, database, redis = (
        assembly.build(Settings.from_env({name: environ[name] for name in names}, tmp_path))
        for names in ((), ("DATABASE_URL",), ("DATABASE_URL", "REDIS_URL"))
    )
    file, server = str(tmp_path / ".gateway/gateway.db"), "postgresql://127.0.0.2:9/name"
    for made, name in ((alone, file), (database, server), (redis, server)):
        assert made.objects is not None
        assert made.objects._database.name == name
    for made, name in ((alone, file), (database, server)):
        assert isinstance(made.counters, TableCounters)
        assert made.counters._database.name == name
        assert list(made.stores._checks) == ["database"]
    assert isinstance(redis.counters, RedisCounters)
    assert redis.counters.name == "redis://127.0.0.2:9/1"
    assert list(redis.stores._checks) == ["database", "counters"]
    assert list(tmp_path.iterdir()) == [], "nothing is opened or made"
    text = redis.tracer._redactor.text(" ".join([*environ.values(), "hunter2 hunter3"]))
    assert "hunter" not in text


def test_a_server_that_cannot_be_used_stops_the_start_and_says_what_to_set(tmp_path: Path) -> None:
    made = Settings.from_env({"DATABASE_URL": "postgresql://u:hunter2@127.0.0.2:9/name"}, tmp_path)
    with pytest.raises(SettingsError) as raised:
        assembly.migrate(made)
    [fault] = raised.value.faults
    assert fault.startswith("postgresql://127.0.0.2:9/name: the server cannot be reached")
    assert fault.endswith("set DATABASE_URL to another database")
    assert "hunter2" not in fault


def test_an_address_of_redis_with_an_option_that_is_none_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        assembly.build(Settings.from_env({"REDIS_URL": "redis://h/0?nonsense=1"}, tmp_path))
