"""The cache before the attempts: hits and misses, what is kept and what never, and calls that share one answer."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth.keys import caller_of
from gateway.cache import ResponseCache
from gateway.core.cachekey import Wish
from gateway.core.calls import CALLER_GONE, DEADLINE, Call, Caller
from gateway.core.keys import Key
from gateway.errors import (
    CallerGone,
    DeadlineExceeded,
    GatewayError,
    NotCached,
    ProviderFailed,
    ProviderRefused,
    ProviderStreamEnded,
)
from gateway.metrics import Metrics
from gateway.pipeline import Gateway, Reply
from gateway.storage.answers import Answers, Claim, Holdings, KeptAnswer, MemoryAnswers
from gateway.storage.faults import StorageFailed
from tests.builders import ROLE, Recorder, Script, Step, call, delta, finish, gateway, says
from tests.storage.stores import Clock

MODEL = "openai/gpt-test"
DOWN = ProviderFailed("down", provider="openai")
ALWAYS = Wish()


class Running:
    """An open gateway with a cache, over a script."""

    def __init__(
        self,
        *scripts: Sequence[Step],
        shared: Answers | None = None,
        clock: Callable[[], float] = time.time,
        **given: Any,
    ) -> None:
        self.script = Script(list(scripts), tells_silence=True)
        self.traced = Recorder()
        self.metrics = Metrics()
        self.gateway: Gateway = gateway(self.script, self.traced)
        self.cache = ResponseCache(shared, self.metrics, **{"silence_s": 0.2, "clock": clock, **given})
        self.gateway.cache = self.cache
        self.gateway.open()

    def ask(self, wish: Wish = ALWAYS, *, stream: bool = False, **more: Any) -> Reply:
        return self.gateway.run(call(MODEL, stream=stream, cache=wish, **more))

    @property
    def revision(self) -> str:
        return self.gateway.catalogue.revision

    @property
    def calls(self) -> int:
        """How many reached the provider."""
        return len(self.script.opened)

    def counted(self, result: str) -> float:
        text = self.metrics.text()[0].decode()
        line = f'gateway_cache_total{{result="{result}"}} '
        return sum(float(one.removeprefix(line)) for one in text.splitlines() if one.startswith(line))


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(*scripts: Sequence[Step], **more: Any) -> Running:
        made.append(Running(*scripts, **more))
        return made[-1]

    yield make
    for one in made:
        one.gateway.close(0.1)


def drained(reply: Reply) -> bytes:
    if reply.body is not None:
        return reply.body
    try:
        return b"".join(chunk.data for chunk in reply if chunk is not None) + reply.last_words
    finally:
        reply.close()


def test_a_second_call_is_answered_as_the_first_was_and_asks_nobody(running: Callable[..., Running]) -> None:
    one = running(says("a", "b"))
    first, second = one.ask(), one.ask()
    assert first.body == second.body != b""
    assert one.calls == 1
    assert first.headers()["x-bt-cached"] == "MISS"
    assert "Age" not in first.headers()
    told = second.headers()
    assert (told["x-bt-cached"], told["Age"]) == ("HIT", "0")
    assert told["x-gateway-model-id"] == first.headers()["x-gateway-model-id"] == MODEL
    assert (one.counted("miss"), one.counted("store"), one.counted("hit")) == (1, 1, 1)


def test_a_hit_is_a_trace_that_costs_nothing(running: Callable[..., Running]) -> None:
    one = running(says("a", "b"))
    drained(one.ask())
    drained(one.ask())
    missed, hit = one.traced.roots
    assert (missed["metadata"]["cached"], hit["metadata"]["cached"]) == (False, True)
    assert hit["output"] == missed["output"] != []
    assert hit["metadata"]["cost_usd"] == 0
    assert hit["metadata"]["attempts"] == 0
    assert one.traced.spans == [], "metrics are summed over a trace's spans"


def test_the_usage_that_a_hit_shows_is_that_of_the_answer(running: Callable[..., Running]) -> None:
    one = running(says("a", "b"))
    drained(one.ask(stream=True))
    drained(one.ask(stream=True))
    assert one.traced.roots[1]["metadata"]["usage"]["completion_tokens"] == 2
    assert one.traced.roots[1]["metadata"]["finish_reasons"] == ["stop"]


def test_a_stream_is_told_again_to_the_byte(running: Callable[..., Running]) -> None:
    one = running(says("a", "b"))
    first, second = drained(one.ask(stream=True)), drained(one.ask(stream=True))
    assert first == second
    assert second.endswith(b"data: [DONE]\n\n")
    assert one.calls == 1
    assert one.traced.roots[0]["output"] == one.traced.roots[1]["output"]


def test_a_kept_stream_answers_who_wants_it_at_once_and_the_other_way_round(running: Callable[..., Running]) -> None:
    one = running(says("a", "b"))
    drained(one.ask(stream=True, text="streamed"))
    whole = json.loads(drained(one.ask(text="streamed")))
    assert whole["choices"][0]["message"]["content"] == "ab"
    assert whole["usage"]["completion_tokens"] == 2
    drained(one.ask(text="whole"))
    streamed = drained(one.ask(text="whole", stream=True))
    assert b'"content":"ab"' in streamed
    assert streamed.endswith(b"data: [DONE]\n\n")
    assert one.calls == 2


def test_two_tenants_never_share(running: Callable[..., Running]) -> None:
    one = running(says("a"), says("b"))
    for tenant in ("tok_11111111", "tok_22222222"):
        reply = one.ask(caller=Caller(tenant, tenant))
        assert reply.headers()["x-bt-cached"] == "MISS"
    assert one.calls == 2
    assert one.ask(caller=Caller("key_1", "tok_22222222")).headers()["x-bt-cached"] == "HIT", "keys of one project"


_IDS = st.sampled_from(["a1", "b2", "c3"])


@given(
    st.lists(st.tuples(_IDS, st.none() | _IDS, st.none() | _IDS), min_size=2, max_size=5), st.booleans(), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_an_answer_is_found_by_the_keys_of_its_project_else_of_its_user_else_by_its_key_alone(
    keys: list[tuple[str, str | None, str | None]], stream: bool, named: bool
) -> None:
    """Whatever keys, users and projects there are, ids of one kind that look like another's included."""
    one = Running(*[says(f"answer {number}") for number in range(len(keys))])
    answers: dict[tuple[str, str], bytes] = {}
    try:
        for key, user, project in keys:
            caller = caller_of(
                Key(key, "k", project=project and f"proj_{project}", user=user and f"user_{user}"), until_s=None
            )
            owner = ("project", project) if project else ("user", user) if user else ("key", key)
            body = drained(one.ask(caller=caller, stream=stream, name="once" if named else None))
            assert answers.setdefault((owner[0], owner[1] or ""), body) == body
        assert one.calls == len(answers) == len(set(answers.values())), "each has asked for itself, once"
    finally:
        one.gateway.close(0.1)


def test_a_look_says_what_would_become_of_a_call_and_changes_nothing(running: Callable[..., Running]) -> None:
    clock = Clock()
    one = running(says("a"), clock=clock)

    def looked(wish: Wish | None = ALWAYS, **more: Any) -> Any:
        asked = call(MODEL, cache=wish, **more)
        return one.cache.look(asked, one.gateway.health.look(asked, one.gateway.catalogue).attempts, one.revision)

    assert looked() == {"answer": "miss", "age_s": None, "ttl_s": ALWAYS.ttl_s}
    assert looked(Wish(use="never")) == looked(None) == {"answer": "off", "age_s": None, "ttl_s": None}
    assert (one.calls, one.counted("miss"), one.counted("hit")) == (0, 0, 0)
    drained(one.ask())
    clock.now_s += 2
    assert looked() == {"answer": "hit", "age_s": 2.0, "ttl_s": ALWAYS.ttl_s - 2}
    assert looked(stream=True)["answer"] == "hit"
    assert looked(text="another")["answer"] == "miss"
    assert looked(caller=Caller("key_9", "another"))["answer"] == "miss"
    clock.now_s += ALWAYS.ttl_s
    assert looked()["answer"] == "miss"
    assert one.counted("hit") == 0
    assert one.cache.look(call(MODEL, cache=ALWAYS), [], one.revision) is None


@pytest.mark.parametrize(
    "steps",
    [
        [ROLE, delta("a"), ProviderStreamEnded("cut", provider="openai")],
        [ROLE, delta("a")],
        [DOWN],
    ],
    ids=["an error in mid-stream", "no finish_reason", "refused"],
)
def test_what_did_not_end_well_is_not_kept(running: Callable[..., Running], steps: list[Step]) -> None:
    one = running(steps, says("b"))
    with contextlib.suppress(GatewayError):
        drained(one.ask(stream=True))
    assert b'"b"' in drained(one.ask(stream=True))
    assert one.calls == 2
    assert one.counted("hit") == 0


def test_a_stream_that_its_caller_left_is_not_kept(running: Callable[..., Running]) -> None:
    one = running([ROLE, delta("a"), delta("b"), finish()], says("c"))
    reply = one.ask(stream=True)
    next(reply)
    reply.close()
    assert one.script.closed == one.script.opened
    assert one.traced.roots[0]["metadata"]["caller_gone"] is True
    assert b'"c"' in drained(one.ask(stream=True))


def test_an_answer_is_kept_for_its_time(running: Callable[..., Running]) -> None:
    clock = Clock()
    one = running(says("a"), clock=clock)
    drained(one.ask(Wish(ttl_s=60)))
    clock.now_s += 59.5
    assert one.ask().headers()["Age"] == "59"
    clock.now_s += 1
    assert one.ask().headers()["x-bt-cached"] == "MISS"
    assert one.calls == 2


@pytest.mark.parametrize(
    ("wish", "is_hit"),
    [
        (Wish(max_age_s=9), False),
        (Wish(max_age_s=11), True),
        (Wish(min_fresh_s=3600), False),
        (Wish(reads=False), False),
        (Wish(keeps=False), True),
        (Wish(only=True), True),
    ],
)
def test_what_a_caller_wants_of_the_cache_is_kept_to(running: Callable[..., Running], wish: Wish, is_hit: bool) -> None:
    clock = Clock()
    one = running(says("a"), clock=clock)
    drained(one.ask())
    clock.now_s += 10
    assert one.ask(wish).headers()["x-bt-cached"] == ("HIT" if is_hit else "MISS")
    assert one.calls == (1 if is_hit else 2)


def test_no_store_keeps_nothing(running: Callable[..., Running]) -> None:
    one = running(says("a"))
    drained(one.ask(Wish(keeps=False)))
    assert one.ask().headers()["x-bt-cached"] == "MISS"


@pytest.mark.parametrize("stream", [False, True])
def test_who_wants_only_what_is_kept_gets_504_where_nothing_is(running: Callable[..., Running], stream: bool) -> None:
    one = running(says("a"))
    for wish in (Wish(only=True), Wish(use="never", only=True)):
        with pytest.raises(NotCached):
            one.ask(wish, stream=stream)
    assert one.calls == 0
    assert [root["metadata"]["status"] for root in one.traced.roots] == [504, 504]


def test_auto_keeps_only_what_is_asked_for_without_chance(running: Callable[..., Running]) -> None:
    one = running(says("a"))
    for body in ({}, {"temperature": 0}):
        for expected in ("MISS", "HIT" if body else "MISS"):
            assert one.ask(Wish(use="auto"), body=body).headers()["x-bt-cached"] == expected


def test_an_answer_that_is_too_large_is_not_kept(running: Callable[..., Running]) -> None:
    one = running(says("a" * 5000), largest_bytes=4000)
    for stream in (False, False, True, True):
        assert b"aaaa" in drained(one.ask(stream=stream))
    assert one.calls == 4


def test_a_large_stream_is_told_whole_to_all_who_share_it(running: Callable[..., Running]) -> None:
    one = running(says(*["a" * 500] * 60), largest_bytes=1000)
    leader = one.ask(stream=True)
    follower = one.ask(stream=True)
    assert drained(leader) == drained(follower)
    assert one.calls == 1
    assert one.ask(stream=True).headers()["x-bt-cached"] == "MISS"


class Gate:
    """A step of a script that waits until it is opened, as a silent provider does."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, asked: Call) -> None:
        self.reached.set()
        while not self.open.wait(0.01) and asked.cancellation.reason is None:
            pass


def at_once(count: int, ask: Callable[[], bytes]) -> tuple[list[threading.Thread], list[Any]]:
    got: list[Any] = []

    def work() -> None:
        try:
            got.append(ask())
        except GatewayError as error:
            got.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, got


def joined(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_at_once_make_one_call(running: Callable[..., Running], stream: bool) -> None:
    gate = Gate()
    one = running([ROLE, delta("a"), gate, delta("b"), finish()])
    threads, got = at_once(100, lambda: drained(one.ask(stream=stream)))
    assert gate.reached.wait(10)
    time.sleep(0.3)
    gate.open.set()
    joined(threads)
    assert one.calls == 1
    assert len(got) == 100
    assert len(set(got)) == 1
    assert one.counted("shared") + one.counted("hit") == 99
    paid = [root for root in one.traced.roots if root["metadata"]["attempts"]]
    assert len(paid) == 1
    assert len(one.traced.roots) == 100
    assert all(root["output"] == paid[0]["output"] for root in one.traced.roots)


@pytest.mark.parametrize("stream", [False, True])
def test_where_the_one_call_fails_each_asks_for_itself(running: Callable[..., Running], stream: bool) -> None:
    gate = Gate()

    def refuse(_call: Call) -> None:
        raise ProviderRefused("no", provider="openai")

    one = running([gate, refuse], says("b"))
    threads, got = at_once(5, lambda: drained(one.ask(stream=stream)))
    assert gate.reached.wait(10)
    time.sleep(0.3)
    gate.open.set()
    joined(threads)
    assert one.calls == 5
    assert sorted(isinstance(one, GatewayError) for one in got) == [False] * 4 + [True]


@pytest.mark.parametrize("stream", [False, True])
def test_the_caller_that_asked_may_leave_and_the_others_have_their_answer(
    running: Callable[..., Running], stream: bool
) -> None:
    gate = Gate()
    one = running([ROLE, delta("a"), gate, delta("b"), finish()])
    asked = call(MODEL, stream=stream, cache=ALWAYS)
    leading, led = at_once(1, lambda: drained(one.gateway.run(asked)))
    assert gate.reached.wait(10)
    following, got = at_once(3, lambda: drained(one.ask(stream=stream)))
    time.sleep(0.3)
    asked.cancellation.abort(CALLER_GONE)
    time.sleep(0.1)
    gate.open.set()
    joined(leading + following)
    assert one.calls == 1
    assert len(set(got)) == 1
    assert b'"b"' in got[0] or b'"ab"' in got[0]
    assert isinstance(led[0], CallerGone) or stream
    assert not stream or one.script.closed == one.script.opened
    paid = [root for root in one.traced.roots if root["metadata"]["attempts"]]
    assert len(paid) == 1, "who asked is charged for it, and nobody else"
    assert len(one.traced.roots) == 4


def test_a_closed_stream_goes_on_for_those_who_share_it(running: Callable[..., Running]) -> None:
    one = running(says("a", "b", "c"))
    leader, follower = one.ask(stream=True), one.ask(stream=True)
    next(leader)
    leader.close()
    assert one.traced.roots == [], "it is not settled before it has ended"
    assert b'"c"' in drained(follower)
    assert one.calls == 1
    assert len(one.traced.roots) == 2
    [paid] = [root for root in one.traced.roots if root["metadata"]["attempts"]]
    assert paid["metadata"]["caller_gone"] is True
    assert one.ask(stream=True).headers()["x-bt-cached"] == "HIT"


def test_nobody_shares_the_shorter_time_that_a_caller_gives_itself(running: Callable[..., Running]) -> None:
    late: list[Call] = []
    cut = [ROLE, delta("a"), lambda asked: late[0].cancellation.abort(DEADLINE), delta("b"), finish()]
    one = running(cut, [ROLE, delta("a"), delta("b"), finish()])
    late.append(call(MODEL, stream=True, cache=ALWAYS, hurried=True))
    first = one.gateway.run(late[0])
    second = one.ask(stream=True)
    with pytest.raises(DeadlineExceeded):
        list(first)
    first.close()
    assert drained(second).count(b'"content"') == 3
    assert one.calls == 2


def test_who_gives_itself_less_time_may_share_what_others_have_begun(running: Callable[..., Running]) -> None:
    one = running([ROLE, delta("a"), delta("b"), finish()])
    first, second = one.ask(stream=True), one.ask(stream=True, hurried=True)
    assert drained(second) == drained(first)
    assert one.calls == 1


def test_a_call_is_stopped_when_the_last_has_left(running: Callable[..., Running]) -> None:
    one = running(says("a", "b", "c"), says("d"))
    leader, follower = one.ask(stream=True), one.ask(stream=True)
    leader.close()
    follower.close()
    assert one.script.closed == one.script.opened
    assert len(one.traced.roots) == 2
    assert all(root["metadata"]["caller_gone"] for root in one.traced.roots)
    assert b'"d"' in drained(one.ask(stream=True))


def test_a_follower_that_leaves_disturbs_nobody(running: Callable[..., Running]) -> None:
    gate = Gate()
    one = running([ROLE, delta("a"), gate, delta("b"), finish()])
    threads, got = at_once(1, lambda: drained(one.ask()))
    assert gate.reached.wait(10)
    asked = call(MODEL, cache=ALWAYS)
    following, told = at_once(1, lambda: drained(one.gateway.run(asked)))
    time.sleep(0.2)
    asked.cancellation.abort(CALLER_GONE)
    joined(following)
    assert isinstance(told[0], CallerGone)
    gate.open.set()
    joined(threads)
    assert b'"ab"' in got[0]


def test_a_stream_that_is_shared_tells_silence(running: Callable[..., Running]) -> None:
    gate = Gate()
    one = running([ROLE, delta("a"), gate, delta("b"), finish()])
    leader = one.ask(stream=True)
    threads, got = at_once(1, lambda: drained(leader))
    assert gate.reached.wait(10)
    follower = one.ask(stream=True)
    told = [next(follower) for _ in range(3)]
    assert told[2] is None
    gate.open.set()
    drained(follower)
    joined(threads)
    assert b'"b"' in got[0]


def test_who_wants_a_new_answer_shares_none(running: Callable[..., Running]) -> None:
    gate = Gate()
    one = running([ROLE, delta("a"), gate, finish()], says("b"))
    threads, got = at_once(1, lambda: drained(one.ask()))
    assert gate.reached.wait(10)
    assert b'"b"' in drained(one.ask(Wish(reads=False)))
    gate.open.set()
    joined(threads)
    assert b'"a"' in got[0]


class Broken(MemoryAnswers):
    """A store that is away, slow, or gives what it never got."""

    def __init__(self, how: str) -> None:
        super().__init__(1 << 20)
        self.how = how
        self.asked = 0

    def _fail(self) -> None:
        self.asked += 1
        if self.how == "away":
            raise StorageFailed("the store is away")
        if self.how == "slow":
            time.sleep(0.5)

    def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        self._fail()
        if self.how == "damaged":
            return KeptAnswer(tenant, digests[0], time.time(), time.time() + 60, b"\xff" * 40)
        return super().find(tenant, digests)

    def keep(self, answer: KeptAnswer, claim: Claim | None = None) -> None:
        self._fail()

    def claim(self, wanted: Claim, digests: Sequence[str], lease_s: float) -> KeptAnswer | Claim:
        return self.find(wanted.tenant, digests) or super().claim(wanted, digests, lease_s)

    def release(self, claim: Claim) -> None:
        if self.how == "away":
            raise StorageFailed("the store is away")

    def holdings(self, tenant: str | None = None) -> Holdings:
        raise StorageFailed("the store is away")


@pytest.mark.parametrize("how", ["away", "slow", "damaged"])
def test_a_broken_store_is_a_miss_and_said_once(
    running: Callable[..., Running], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Broken(how)
    one = running(says("a"), shared=store)
    spent_s = []
    for number in range(12):
        began_s = time.monotonic()
        assert one.ask(text=f"{number}").headers()["x-bt-cached"] == "MISS"
        spent_s.append(time.monotonic() - began_s)
    assert one.calls == 12
    assert sorted(spent_s)[6] < 0.3
    if how != "damaged":
        assert len([line for line in caplog.records if "store of the cache" in line.getMessage()]) == 1
        assert one.counted("error") == 5, "then it is left alone for a while"
        assert store.asked <= 5
        assert one.ask(text="0").headers()["x-bt-cached"] == "HIT", "the worker still has what it had itself"
    time.sleep(0.6 if how == "slow" else 0)


def test_workers_share_what_is_kept(running: Callable[..., Running]) -> None:
    shared = MemoryAnswers(1 << 20)
    one, other = running(says("a"), shared=shared), running(says("b"), shared=shared)
    assert one.ask().body == other.ask().body
    assert other.calls == 0
