"""`gateway doctor`: each check against what it is about, and the command as a shell runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from pathlib import Path

import pytest

from gateway.assembly import migrate
from gateway.cli import doctor, doctor_afar, doctor_here
from gateway.cli.doctor import Check, Finding, Running
from gateway.secret import Secret
from gateway.settings import Settings
from tests.cli.spools import leave
from tests.cli.test_cli import free_port
from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.loopback import Answering, Exchange, Loopback
from tests.fakes.provider import FakeProvider
from tests.fakes.stores import PASSWORD, Redis
from tests.storage.holding import held

GATEWAY = str(Path(sys.executable).parent / "gateway")
SECRET = "sk-hunter2-0123456789abcdef"


def found(findings: Iterable[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def settings(place: Path, **environment: str) -> Settings:
    return Settings.from_env(environment, place)


def look(checks: list[Check], name: str) -> list[Finding]:
    return [finding for check in checks if check.name == name for finding in check.look()]


def here(place: Path, name: str, **environment: str) -> list[Finding]:
    return look(doctor_here.checks(settings(place, **environment)), name)


def afar(place: Path, name: str, **environment: str) -> list[Finding]:
    return look(doctor_afar.checks(settings(place, **environment)), name)


# the command


def run(place: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [GATEWAY, "doctor", *arguments]
    environ = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, timeout=60)


def test_without_an_account_all_is_well(place: Path) -> None:
    began_s = time.monotonic()
    done = run(place, "--call", "demo/echo")
    assert time.monotonic() - began_s < 15
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warn"}
    for words in (
        "litellm 1.",
        "gunicorn.conf.py is found",
        "threads are patched before LiteLLM is imported",
        "a mock call's span is caught",
        "a test trace went through a spool and was read back",
        "tokens, free",
    ):
        assert any(words in line for line in lines), words
    kept = {path.name for path in (place / ".gateway").iterdir()}
    assert kept == {"spool", "gateway.db", "gateway.db.lock"}, "the trace of the call stays, and nothing else"
    environ = {"PATH": os.environ["PATH"]}
    listed = subprocess.run([GATEWAY, "traces", "list"], cwd=place, env=environ, capture_output=True, text=True)
    assert "demo/echo" in listed.stdout


def test_all_that_is_wrong_is_named_at_once_and_no_secret(place: Path) -> None:
    with FakeBraintrust("another-key") as braintrust, FakeProvider() as provider:
        done = run(
            place,
            "--json",
            **braintrust.environment() | {"BRAINTRUST_API_KEY": SECRET},
            GATEWAY_AUTH_TOKEN=f"{SECRET}-a,hunter2",
            OPENAI_API_KEY=SECRET,
            OPENAI_BASE_URL=provider.base_url,
            GROQ_API_KEY=SECRET,
            GROQ_API_BASE=f"http://127.0.0.1:{free_port()}",
        )
        assert not any(request.path.endswith("completions") for request in provider.requests()), "no model is called"
    assert done.returncode == 1
    assert "hunter2" not in done.stdout + done.stderr
    checks = [Finding(**one) for one in json.loads(done.stdout)["checks"]]
    failed = {finding.check: finding.saw for finding in checks if finding.status == "fail"}
    assert set(failed) == {"braintrust", "providers"}
    assert "401" in failed["braintrust"]
    assert "groq" in failed["providers"]
    assert "1 of them short" in found(checks, "callers")[0].saw


def test_without_a_provider_and_without_demo_models_nothing_can_be_called(place: Path) -> None:
    done = run(place, GATEWAY_DEMO="off")
    assert done.returncode == 0
    assert "warn  settings     providers: none; " in done.stdout
    assert "no model can be called" in done.stdout
    assert "demo models answer" not in done.stdout


def test_every_fault_of_the_settings_is_a_line(place: Path) -> None:
    done = run(place, GATEWAY_TIMEOUT_S="soon", GATEWAY_DMEO="on")
    assert done.returncode == 1
    faults = [line for line in done.stdout.splitlines() if line.startswith("fail  settings")]
    assert len(faults) == 2
    assert "GATEWAY_TIMEOUT_S" in faults[0]
    assert "GATEWAY_DMEO" in faults[1]


def test_a_routes_file_is_looked_at_and_its_addresses_are_tried(place: Path) -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    with FakeProvider() as provider:
        entries = "".join(
            f"- {{model_name: {name}, litellm_params: {{model: {name}/x, api_base: '{base}', api_key: {SECRET}}}}}\n"
            for name, base in (("hosted_vllm", provider.base_url), ("groq", closed))
        )
        done = run(place, "--json", GATEWAY_CONFIG_YAML=f"model_list:\n{entries}open_catalogue: false\n")
    assert "hunter2" not in done.stdout + done.stderr
    checks = [Finding(**one) for one in json.loads(done.stdout)["checks"]]
    routed, *warnings = found(checks, "routes")
    assert routed.saw == "GATEWAY_CONFIG_YAML names 2 models at 2 deployments; no other name is answered"
    assert len(warnings) == 2
    tried = {finding.saw.partition(" ")[0]: finding.status for finding in found(checks, "providers")}
    assert tried == {"hosted_vllm": "ok", "groq": "fail"}


def test_every_fault_of_a_routes_file_is_a_line(place: Path) -> None:
    done = run(place, GATEWAY_CONFIG_YAML="model_lst: 1\nopen_catalogue: 2\n")
    faults = [line for line in done.stdout.splitlines() if line.startswith("fail  settings")]
    assert (done.returncode, len(faults)) == (1, 3)
    assert "GATEWAY_CONFIG_YAML:1:1: model_lst: unknown key; model_list is meant?" in faults[1]


# the runner


def test_a_check_that_raises_is_a_line() -> None:
    def look() -> list[Finding]:
        raise RuntimeError("broken")

    [finding] = Running(Check("odd", look)).findings()
    assert (finding.status, finding.saw) == ("fail", "RuntimeError: broken")


def test_a_check_that_hangs_is_a_line() -> None:
    def look() -> list[Finding]:
        time.sleep(1)
        return []

    [finding] = Running(Check("slow", look, timeout_s=0.05)).findings()
    assert (finding.status, finding.saw) == ("fail", "no result within 0.05 s")


# here


@pytest.mark.parametrize(("version", "status"), [("1.82.7", "fail"), ("1.82.8", "fail"), ("1.84.0", "ok")])
def test_releases_of_litellm_that_stole_credentials(version: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_here.metadata, "version", lambda _name: version)
    assert [finding.status for finding in doctor_here._packages()] == [status]


def test_a_gunicorn_conf_that_patches_nothing(place: Path) -> None:
    (place / "wsgi.py").touch()
    conf = place / "gunicorn.conf.py"
    conf.write_text("import sys, types\nsys.modules['litellm'] = types.ModuleType('litellm')\n")
    [gevent] = found(doctor_here._gunicorn(), "gevent")
    assert (gevent.status, gevent.saw) == ("fail", "LiteLLM is imported too early")
    conf.write_text("raise ValueError('not so')\n")
    [gevent] = found(doctor_here._gunicorn(), "gevent")
    assert gevent.status == "fail"
    assert "ValueError: not so" in gevent.saw


def test_a_file_in_place_of_the_data_folder(place: Path) -> None:
    (place / ".gateway").touch()
    [finding] = here(place, "data folder")
    assert finding.status == "fail"
    assert "GATEWAY_DATA_DIR" in finding.advice
    [finding] = afar(place, "spooling")
    assert finding.status == "fail"


def test_a_data_folder_that_others_can_read(place: Path) -> None:
    folder = place / ".gateway"
    (folder / "spool").mkdir(parents=True, mode=0o755)
    (folder / "spool" / "rows").touch(mode=0o644)
    [finding] = found(here(place, "data folder"), "permissions")
    assert (finding.status, "others can read 1 of its files" in finding.saw) == ("warn", True)
    assert str(folder / "spool" / "rows") in finding.saw
    (folder / "spool").chmod(0o700)
    [finding] = found(here(place, "data folder"), "permissions")
    assert finding.status == "ok"


def test_a_database_that_others_can_read_with_a_braintrust_key_too(place: Path) -> None:
    folder = place / ".gateway"
    made = settings(place, BRAINTRUST_API_KEY=SECRET)
    migrate(made)
    folder.chmod(0o755)
    assert [finding.status for finding in found(here(place, "data folder"), "permissions")] == ["ok"]
    made.database.chmod(0o644)
    [finding] = found(here(place, "data folder", BRAINTRUST_API_KEY=SECRET), "permissions")
    assert finding.status == "warn"
    assert str(folder / "gateway.db") in finding.saw


def test_the_database_before_and_after_the_first_start(place: Path) -> None:
    [finding] = here(place, "database")
    assert (finding.status, finding.saw) == ("ok", "gateway.db is made at the first start")
    assert not (place / ".gateway").exists()
    migrate(settings(place))
    [finding] = here(place, "database", BRAINTRUST_API_KEY=SECRET)
    assert (finding.status, "can be read and written" in finding.saw) == ("ok", True)


def test_a_database_that_would_stop_the_start(place: Path) -> None:
    (place / ".gateway").mkdir()
    (place / ".gateway" / "gateway.db").write_bytes(b"a letter to a friend" * 100)
    [finding] = here(place, "database", BRAINTRUST_API_KEY=SECRET)
    assert (finding.status, "is not a database" in finding.saw) == ("fail", True)
    assert "GATEWAY_DATA_DIR" in finding.advice


def test_a_database_that_another_process_holds(place: Path) -> None:
    made = settings(place)
    migrate(made)
    with held(made.database):
        [finding] = here(place, "database")
    assert (finding.status, "others have held the database" in finding.saw) == ("warn", True)


def test_a_slow_disk(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdatasync

    def slow(handle: int) -> None:
        real(handle)
        time.sleep(0.06)

    monkeypatch.setattr(os, "fdatasync", slow)
    [finding] = found(here(place, "data folder"), "fsync")
    assert finding.status == "warn"


def test_less_room_than_the_spool_may_take(place: Path) -> None:
    [finding] = found(here(place, "data folder", GATEWAY_SPOOL_MB="1048576"), "disk")
    assert (finding.status, "GATEWAY_SPOOL_MB" in finding.advice) == ("warn", True)


def test_a_file_system_in_memory() -> None:
    finding = doctor_here._file_system(Path("/dev/shm"))
    assert (finding.status, finding.saw) == ("warn", "tmpfs at /dev/shm")


def test_what_waits_in_the_spool(folder: Path, place: Path, braintrust: FakeBraintrust) -> None:
    leave(folder, 1)
    finding, ledger = here(place, "spool", **braintrust.environment())
    assert (ledger.status, ledger.saw) == ("ok", "ledger: 0 rows waiting, 0 sent so far")
    assert finding.status == "warn"
    assert "1 row waiting" in finding.saw
    assert "nothing delivers them" in finding.advice


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("{", "fail", "cannot be read as JSON"),
        ("{}", "warn", "names no model"),
        ('{"own": {"input_cost_per_token": 1}}', "warn", "no price for own"),
        ('{"own": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}', "ok", "has 1 prices"),
    ],
)
def test_prices(text: str, status: str, words: str, place: Path) -> None:
    (place / "prices.json").write_text(text)
    [finding] = here(place, "prices", GATEWAY_PRICES="prices.json")
    assert finding.status == status
    assert words in finding.saw


def test_who_may_call(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(here(place, "callers"), "callers")[0].status == "ok"
    monkeypatch.setenv("PORT", str(free_port()))
    assert found(here(place, "callers"), "callers")[0].status == "fail"
    assert found(here(place, "callers", GATEWAY_AUTH_TOKEN=SECRET), "callers")[0].status == "ok"
    with Answering() as server:
        monkeypatch.setenv("PORT", str(server.port))
        assert "something listens" in found(here(place, "callers"), "port")[0].saw


# afar


def test_braintrust_takes_a_test_trace(place: Path, braintrust: FakeBraintrust) -> None:
    signed_in, took = afar(place, "braintrust", **braintrust.environment())
    assert (signed_in.status, took.status) == ("ok", "ok")
    assert "fake-org" in signed_in.saw
    [row] = braintrust.rows()
    assert row["id"] in took.saw
    assert row["span_attributes"]["name"] == "gateway doctor"
    assert braintrust.project_name(row["project_id"]) == "llm-gateway"


def test_braintrust_is_down(place: Path, braintrust: FakeBraintrust) -> None:
    environment = braintrust.environment()
    braintrust.close()
    [finding] = afar(place, "braintrust", **environment)
    assert (finding.status, finding.advice) == ("fail", "traces are kept, and tried again")


@pytest.mark.parametrize(
    ("off_s", "status", "words"), [(0, "ok", "within"), (90, "warn", "behind"), (-90, "warn", "ahead")]
)
def test_the_clock(off_s: float, status: str, words: str, place: Path) -> None:
    class Dated(Loopback):
        def handle(self, exchange: Exchange) -> None:
            exchange.respond(404, {"Date": formatdate(time.time() + off_s, usegmt=True)}, b"")

    with Dated() as server:
        [finding] = afar(place, "clock", OPENAI_API_KEY=SECRET, OPENAI_BASE_URL=server.origin)
        assert all("authorization" not in request.headers for request in server.requests())
    assert finding.status == status
    assert words in finding.saw


def test_a_provider_whose_tls_is_none(place: Path) -> None:
    with FakeProvider() as provider:
        address = provider.origin.replace("http:", "https:")
        [finding] = afar(place, "providers", OPENAI_API_KEY=SECRET, OPENAI_BASE_URL=address)
    assert finding.status == "fail"
    assert "TLS fails" in finding.saw


def test_a_call_that_fails_is_explained(place: Path) -> None:
    [finding] = doctor_afar.call(settings(place), "nobody/nothing").look()
    assert finding.status == "fail"
    assert "model_not_found" in finding.saw


def test_a_call_by_a_name_of_the_routes_file_has_the_price_that_the_file_says(place: Path) -> None:
    with FakeProvider() as provider:
        text = (
            "model_list: [{model_name: mine, model_info: {base_model: gpt-4o-mini}, litellm_params: "
            f"{{model: openai/x, api_base: '{provider.base_url}'}}}}]"
        )
        done = run(place, "--call", "mine", GATEWAY_CONFIG_YAML=text, OPENAI_API_KEY=SECRET)
        [request] = [one for one in provider.requests() if one.method == "POST"]
    assert "openai/x answered in" in done.stdout
    assert "12 + 7 tokens, 0.000006" in done.stdout
    assert SECRET not in str(request.headers)


def test_help_says_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    from gateway import cli

    with pytest.raises(SystemExit):
        cli.main(["doctor", "--help"])
    assert "Exit status" in capsys.readouterr().out
    assert doctor._CHECK_S < 15


# stores on servers


def test_a_postgres_database_is_told_with_its_version(
    place: Path, empty_postgres_address: Secret, postgres_address: Secret
) -> None:
    [empty] = afar(place, "postgres", DATABASE_URL=empty_postgres_address.reveal())
    [made] = afar(place, "postgres", DATABASE_URL=postgres_address.reveal())
    assert (empty.status, made.status) == ("ok", "ok")
    assert "Postgres 18" in made.saw
    assert empty.saw.endswith("its tables are made at the first start")
    assert not made.saw.endswith("first start")
    assert PASSWORD not in f"{empty}{made}"


def test_a_redis_server_is_told_and_tried(place: Path, redis_servers: Mapping[str, Redis]) -> None:
    for server in redis_servers.values():
        [finding] = afar(place, "redis", REDIS_URL=server.url)
        assert (finding.status, finding.check) in (("ok", "redis"), ("warn", "redis"))  # slow, on a busy machine
        assert f"redis://127.0.0.1:{server.port}/0: a connection and a write took" in finding.saw
        assert PASSWORD not in str(finding)
        [wrong] = afar(place, "redis", REDIS_URL=server.url.replace(PASSWORD, "hunter2"))
        assert wrong.status == "fail"
        assert "hunter2" not in str(wrong)


@pytest.mark.parametrize(
    ("name", "url"),
    [("postgres", "postgresql://u:hunter2@127.0.0.2:9/name"), ("redis", "redis://:hunter2@127.0.0.2:9/0")],
)
def test_a_store_that_is_away_fails(name: str, url: str, place: Path) -> None:
    [finding] = afar(place, name, **{"postgres": {"DATABASE_URL": url}, "redis": {"REDIS_URL": url}}[name])
    assert finding.status == "fail"
    assert "127.0.0.2:9" in finding.saw
    assert "hunter2" not in str(finding)


def test_stores_that_are_not_set_are_not_looked_at(place: Path) -> None:
    assert afar(place, "postgres") == afar(place, "redis") == []
