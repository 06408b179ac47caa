"""The ledger at the real server: after a kill too, it says of each call what its trace says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.braintrust_server import FakeBraintrust
from tests.served.books import PRICES, differences, rows_of
from tests.served.caller import Caller
from tests.served.process import BRAINTRUST_KEY, TOKEN, Served
from tests.served.traces import spans_of

ADMIN_TOKEN = "admin-token-of-the-ledger"
_TOLD_S = 15.0


def environment(folder: Path, braintrust: FakeBraintrust) -> dict[str, str]:
    own = {"GATEWAY_AUTH_TOKEN": TOKEN, "GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN, "GATEWAY_DEMO": "on"}
    places = {"GATEWAY_DATA_DIR": str(folder / "data"), "GATEWAY_PRICES": str(folder / "prices.json")}
    return own | places | braintrust.environment()


def start(folder: Path, name: str, braintrust: FakeBraintrust) -> Served:
    (folder / "prices.json").write_text(json.dumps(PRICES))
    served = Served(folder / name, {"WEB_CONCURRENCY": "1", **environment(folder, braintrust)})
    served.data_dir = folder / "data"
    return served


def asked(served: Served, path: str) -> Any:
    answer = httpx.get(f"{served.url}{path}", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_after_a_kill_the_ledger_and_the_traces_say_the_same(tmp_path: Path) -> None:
    with FakeBraintrust(BRAINTRUST_KEY) as braintrust:
        with start(tmp_path, "first", braintrust) as served, Caller(served.url, TOKEN) as caller:
            ended = [caller.chat("demo/echo", f"words {'more ' * number}") for number in range(5)]
            ended.append(caller.chat("demo/error-500"))
            assert caller.stream("demo/echo", "in a stream").ends_well
            assert caller.stream("demo/cut", "one two three four").fails_once
            until_s = time.monotonic() + _TOLD_S
            while (total := asked(served, "/admin/v1/usage")["total"])["requests"] < 8:
                assert time.monotonic() < until_s, total
                time.sleep(0.1)
            calls = asked(served, "/admin/v1/usage/calls?limit=100")["data"]
            slow = threading.Thread(target=_cut_off, args=(served.url,))
            slow.start()
            time.sleep(0.6)
            served.kill(workers_too=True)
            slow.join(10)
        drained = subprocess.run(
            [Path(sys.executable).with_name("gateway"), "spool", "drain"],
            cwd=tmp_path,
            env={**environment(tmp_path, braintrust), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert drained.returncode == 0, drained.stdout + drained.stderr
        roots, under = spans_of(braintrust.rows())
    assert "ledger: 1 row delivered (1 of them of interrupted calls)" in drained.stdout
    book = rows_of(tmp_path / "data")
    requests = [answer.headers["request-id"] for answer in ended]
    assert set(requests) <= {call["request_id"] for call in calls} < set(book)
    assert differences(book, roots, under, requests) == []
    assert sorted(row["state"] for row in book.values()) == ["ended"] * 8 + ["lost"]
    assert (total["requests"], total["failed"], total["lost"], total["unpriced"]) == (8, 2, 0, 0)
    assert total["cost_nano"] == sum(row["cost_nano"] or 0 for row in book.values()) > 0


def _cut_off(url: str) -> None:
    try:
        with Caller(url, TOKEN) as caller:
            caller.stream("demo/slow", "a b c d e f g h i j k l m n o p q r s t")
    except httpx.HTTPError:
        pass  # the kill
