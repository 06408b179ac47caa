"""What a worker has at hand, and the store behind it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.cache.stores import FRONT_S, Stores
from gateway.storage.answers import KeptAnswer, MemoryAnswers
from tests.storage.stores import Clock

DIGEST = "0" * 64


class Counted(MemoryAnswers):
    """A shared store that counts how often it is looked into."""

    looked = 0

    def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        self.looked += 1
        return super().find(tenant, digests)


def made(clock: Clock, shared: MemoryAnswers | None) -> Stores:
    return Stores(MemoryAnswers(1 << 20, clock), shared, lambda: None, clock, patience_s=5)


def kept(clock: Clock, ttl_s: float = 60.0) -> KeptAnswer:
    return KeptAnswer("tok_1", DIGEST, clock(), clock() + ttl_s, b"said")


def test_what_was_found_is_at_hand_for_a_while_and_then_looked_for_again() -> None:
    clock = Clock()
    shared = Counted(1 << 20, clock)
    answer = kept(clock)
    shared.keep(answer)
    stores = made(clock, shared)
    assert stores.at_hand("tok_1", [DIGEST]) is None
    for _ in range(3):
        assert stores.find("tok_1", [DIGEST]) == answer, "with the time that it has in the shared store"
    assert stores.at_hand("tok_1", [DIGEST]) == answer
    assert shared.looked == 1
    clock.now_s += FRONT_S + 0.1
    shared.clear()
    assert stores.at_hand("tok_1", [DIGEST]) is None
    assert stores.find("tok_1", [DIGEST]) is None, "so what was cleared is gone"


def test_what_was_cleared_is_at_hand_no_more_within_a_second_or_two() -> None:
    clock = Clock()
    shared = Counted(1 << 20, clock)
    shared.keep(kept(clock))
    stores = made(clock, shared)
    try:
        assert stores.find("tok_1", [DIGEST]) is not None
        shared.clear()
        end_s = time.monotonic() + 5
        while stores.at_hand("tok_1", [DIGEST]) is not None:
            assert time.monotonic() < end_s
            time.sleep(0.05)
        assert stores.find("tok_1", [DIGEST]) is None
    finally:
        stores.close()


def test_what_was_found_while_it_was_cleared_is_not_at_hand() -> None:
    clock = Clock()

    class Cleared(MemoryAnswers):
        def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
            found = super().find(tenant, digests)
            self.clear()
            stores.look_for_clearing()
            return found

    shared = Cleared(1 << 20, clock)
    shared.keep(kept(clock))
    stores = made(clock, shared)
    try:
        assert stores.find("tok_1", [DIGEST]) is not None
        assert stores.at_hand("tok_1", [DIGEST]) is None
    finally:
        stores.close()


def test_what_is_at_hand_ends_with_its_own_time_too() -> None:
    clock = Clock()
    stores = made(clock, Counted(1 << 20, clock))
    stores.keep(kept(clock, ttl_s=2))
    clock.now_s += 2.1
    assert stores.find("tok_1", [DIGEST]) is None


def test_what_is_kept_is_at_hand_and_in_the_shared_store() -> None:
    clock = Clock()
    shared = Counted(1 << 20, clock)
    stores = made(clock, shared)
    assert stores.keep(kept(clock))
    assert stores.at_hand("tok_1", [DIGEST]) == shared.find("tok_1", [DIGEST]) == kept(clock)


def test_a_worker_alone_keeps_answers_for_their_whole_time() -> None:
    clock = Clock()
    stores = made(clock, None)
    assert stores.keep(kept(clock))
    clock.now_s += 59
    assert stores.find("tok_1", [DIGEST]) is not None


def test_a_store_that_answers_again_is_used_again() -> None:
    class Late(MemoryAnswers):
        late = True

        def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
            time.sleep(0.3 if self.late else 0)
            return super().find(tenant, digests)

    clock, failures = Clock(), list[int]()
    shared = Late(1 << 20, clock)
    shared.keep(kept(clock))
    stores = Stores(MemoryAnswers(1 << 20, clock), shared, lambda: failures.append(1), clock, patience_s=0.05)
    assert stores.find("tok_1", [DIGEST]) is None
    assert failures == [1]
    shared.late = False
    end_s = time.monotonic() + 5
    while stores.find("tok_1", [DIGEST]) is None:
        assert time.monotonic() < end_s
    time.sleep(0.3)
