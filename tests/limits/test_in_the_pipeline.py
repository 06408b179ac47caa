"""Limits in the life of a call: admitted after the plan, settled once, told in headers, traces and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateway import assembly
from gateway.app import create_app
from gateway.core.rules import MICRO, PARALLEL, TOKENS, Rule
from gateway.errors import BudgetExceeded, LimitExceeded, ProviderFailed, StoreUnavailable
from gateway.limits import Policy
from gateway.metrics import Metrics
from gateway.notify import Notifier
from gateway.pipeline import Gateway
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.followed import FollowedRules
from gateway.storage.memory import MemoryCounters
from gateway.storage.migrate import upgrade
from gateway.storage.notices import Notices
from gateway.storage.usage import UsageRows
from tests.builders import TOKEN, Recorder, Script, Step, gateway, says
from tests.limits.ruled import DOLLAR, MODEL, Removable, Watched, asked, budget, limit, limiter, meter, used


class Running:
    """An open gateway over a script, with rules."""

    def __init__(self, script: Sequence[Step], *rules: Rule, **more: object) -> None:
        self.traced = Recorder()
        self.script = Script([script])
        self.gateway: Gateway = gateway(self.script, self.traced, prices={MODEL: DOLLAR})
        self.limiter = self.gateway.limiter = limiter(*rules, **more)
        self.gateway.open()


@pytest.fixture
def running() -> Iterator[type[Running]]:
    made: list[Running] = []

    class Kept(Running):
        def __init__(self, *args: object, **more: object) -> None:
            super().__init__(*args, **more)  # type: ignore[arg-type]
            made.append(self)

    yield Kept
    for one in made:
        one.gateway.close(0.1)


def test_a_whole_answer_is_charged_and_says_how_the_limit_stands(running: type[Running]) -> None:
    here = running(says("a", "b"), limit(most=5), budget(), limit(TOKENS, 100, id="lim_2"))
    reply = here.gateway.run(asked(9))
    assert reply.headers()["x-ratelimit-remaining-requests"] == "4"
    assert reply.headers()["x-ratelimit-remaining-tokens"] == "90", "as it stood when the call came"
    assert used(here.limiter) == [1, 2 * MICRO, 3]
    assert here.traced.roots[0]["metadata"]["limits"] == ["lim_abcdefghijkl", "bud_abcdefghijkl", "lim_2"]
    assert "refused_by" not in here.traced.roots[0]["metadata"]


@pytest.mark.parametrize("read", [0, 2, None])
def test_a_stream_is_charged_for_what_came_also_where_its_caller_leaves(
    running: type[Running], read: int | None
) -> None:
    here = running(says("four", "more", "word", "here"), limit(PARALLEL, 1, None), budget())
    reply = here.gateway.run(asked(9, stream=True))
    assert used(here.limiter) == [1, 9 * MICRO]
    for _ in range(100 if read is None else read):
        if next(reply, None) is None:
            break
    reply.close()
    at_once, spent = used(here.limiter)
    assert at_once == 0
    assert spent == 4 * MICRO if read is None else 0 < spent <= 4 * MICRO
    assert here.traced.roots[0]["metadata"]["cost_usd"] == spent / MICRO, "as the trace has it"


def test_a_call_that_failed_gives_back_what_it_reserved(running: type[Running]) -> None:
    here = running([ProviderFailed("down", provider="openai")], limit(most=5), limit(TOKENS, 100, id="lim_2"), budget())
    with pytest.raises(ProviderFailed) as failed:
        here.gateway.run(asked(9))
    assert used(here.limiter) == [1, 0, 0]
    assert failed.value.reply_headers["x-ratelimit-remaining-requests"] == "4"
    assert failed.value.reply_headers["x-bt-span-id"] == here.traced.roots[0]["span_id"]


def test_a_call_that_is_refused_reaches_no_provider_and_its_trace_says_who_refused(running: type[Running]) -> None:
    watched = Watched()
    here = running(says("a"), limit(most=5), budget(most=MICRO), observer=watched)
    here.gateway.run(asked(1))
    with pytest.raises(BudgetExceeded) as refused:
        here.gateway.run(asked(1))
    assert len(here.script.opened) == 1
    root = here.traced.roots[-1]["metadata"]
    assert (root["status"], root["error_code"]) == (429, "budget_exceeded")
    assert (root["refused_by"], root["limits"]) == ("bud_abcdefghijkl", ["lim_abcdefghijkl", "bud_abcdefghijkl"])
    assert refused.value.reply_headers["x-bt-span-id"]
    assert used(here.limiter) == [1, MICRO]
    assert watched.refusals == ["bud_abcdefghijkl"]


def test_a_gateway_that_closes_charges_what_is_under_way(running: type[Running]) -> None:
    store = MemoryCounters()
    here = running(says("four", "more", "word", "here"), budget(), counters=store)
    reply = here.gateway.run(asked(9, stream=True))
    next(reply)
    here.gateway.close(0.1)
    reply.close()
    assert 0 < used(limiter(budget(), counters=store))[0] <= 4 * MICRO


# At the edge.


def ask(app_of: Gateway, path: str = "/v1/chat/completions", **more: object) -> tuple[int, dict[str, str], str]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, **more}
    with create_app(gateway=app_of).test_client() as client:
        response = client.post(path, json=body, headers={"Authorization": f"Bearer {TOKEN}"})
        return response.status_code, {name.lower(): value for name, value in response.headers}, response.text


def test_a_refused_call_is_answered_in_its_dialect_with_what_sdks_obey(running: type[Running]) -> None:
    here = running(says("a"), limit(most=1))
    assert ask(here.gateway)[0] == 200
    status, headers, text = ask(here.gateway)
    assert (status, headers["x-should-retry"]) == (429, "true")
    assert 59 <= int(headers["retry-after"]) <= 62
    assert 59_000 <= int(headers["retry-after-ms"]) <= 62_000
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert '"code":"rate_limit_exceeded"' in text
    assert '"type":"rate_limit_error"' in text
    assert '"source":"gateway"' in text
    status, headers, text = ask(here.gateway, "/v1/messages")
    assert (status, headers["anthropic-ratelimit-requests-remaining"]) == (429, "0")
    assert '"type":"rate_limit_error"' in text


def test_a_budget_that_is_used_up_is_not_to_be_tried_again(running: type[Running]) -> None:
    here = running(says("a"), budget(most=0))
    status, headers, text = ask(here.gateway)
    assert (status, headers["x-should-retry"]) == (429, "false")
    assert "retry-after" not in headers
    assert '"code":"budget_exceeded"' in text


def test_a_store_that_is_away_is_told_with_when_to_try_again(running: type[Running]) -> None:
    store = Removable()
    store.away = True
    here = running(says("a"), limit(), counters=store, policy=Policy(fail_open=False))
    status, headers, _ = ask(here.gateway)
    assert (status, headers["retry-after"], headers["x-should-retry"]) == (503, "1", "true")
    with pytest.raises(StoreUnavailable):
        here.gateway.run(asked())


def test_a_call_is_settled_also_where_the_store_goes_away_under_it(running: type[Running]) -> None:
    store = Removable()
    here = running(says("a"), limit(most=9), counters=store)
    reply = here.gateway.run(asked(1, stream=True))
    store.away = True
    assert all(chunk is not None for chunk in reply)
    assert here.traced.roots[0]["metadata"]["status"] == 200


def test_refusals_are_counted_by_kind_and_measure(tmp_path: Path) -> None:
    metrics = Metrics()
    upgrade(tmp_path / "gateway.db")
    database = Database(tmp_path / "gateway.db")
    it = assembly.limiter(
        *(Settings.load({"GATEWAY_RATE_LIMIT_RPM": "1"}), MemoryCounters(), meter(), metrics, {}),
        rules=FollowedRules(database),
        spending=UsageRows(database),
        notices=Notifier(Notices(database), None),
        workers=1,
    )
    gate = gateway(Script([says("a")]))
    gate.limiter = it
    gate.open()
    gate.run(asked(1))
    with pytest.raises(LimitExceeded):
        gate.run(asked(1))
    gate.close(0.1)
    assert b'gateway_limit_refusals_total{kind="limit",measure="requests"} 1.0' in metrics.text()[0]
