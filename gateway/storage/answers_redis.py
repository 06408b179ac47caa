"""Answers on a Redis or Valkey server, which forgets them by itself when their time is over."""

from __future__ import annotations

import hashlib
import struct
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any

from gateway.secret import Secret
from gateway.storage.answers import CLEARING_KEPT_S, Claim, Holdings, KeptAnswer, compressed, uncompressed
from gateway.storage.faults import StorageFailed
from gateway.storage.redis_link import RedisLink
from gateway.storage.redis_scripts import Script

#: When an answer was kept and until when it is, seconds since the epoch, in front of its content.
_TIMES = struct.Struct("!dd")

#: ARGV: keys. Returns the first that is there and its place, from 1 on, or nothing.
_FIND = Script("""
for i = 1, #ARGV do
  local found = redis.call('GET', ARGV[i])
  if found then return {i, found} end
end
return false
""")

#: ARGV: key, ttl_ms, value; then the key of a claim that is given up and its value, or nothing.
_KEEP = Script("""
redis.call('SET', ARGV[1], ARGV[3], 'PX', ARGV[2])
if ARGV[4] and redis.call('GET', ARGV[4]) == ARGV[5] then redis.call('DEL', ARGV[4]) end
return 1
""")

#: ARGV: the key of a claim, its value, lease_ms, then keys of answers. Returns the first of these that is there and
#: its place, from 1 on; else 0 and the claim that is held, which is now the wanted one where none was.
_CLAIM = Script("""
for i = 4, #ARGV do
  local found = redis.call('GET', ARGV[i])
  if found then return {i - 3, found} end
end
local held = redis.call('GET', ARGV[1])
if held and held ~= ARGV[2] then return {0, held} end
redis.call('SET', ARGV[1], ARGV[2], 'PX', ARGV[3])
return {0, ARGV[2]}
""")

#: ARGV: lease_ms, or 0 to give them up; then keys of claims and their values in turn.
_RENEW = Script("""
for i = 2, #ARGV, 2 do
  if redis.call('GET', ARGV[i]) == ARGV[i + 1] then
    if ARGV[1] == '0' then redis.call('DEL', ARGV[i]) else redis.call('PEXPIRE', ARGV[i], ARGV[1]) end
  end
end
return 1
""")

#: ARGV: cursor, pattern, whether to delete. Returns the next cursor, how many there were, and their sizes together.
#: One step of a walk, so that a server with many keys answers others between two.
_WALK = Script("""
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 500)
local sizes = 0
for i = 1, #step[2] do
  sizes = sizes + redis.call('STRLEN', step[2][i])
  if ARGV[3] == '1' then redis.call('UNLINK', step[2][i]) end
end
return {step[1], #step[2], sizes}
""")


class RedisAnswers:
    """`Answers` of a server; how much room they take, and what makes room, is the server's `maxmemory` to say.

    Args:
        address: as `RedisCounters` has it.
        largest_bytes: of one content.
        clock: seconds since the epoch.
        timeout_s: what an answer of the server may take.

    Raises:
        StorageFailed: the address cannot be read.
    """

    def __init__(
        self,
        address: Secret,
        largest_bytes: int,
        clock: Callable[[], float] = time.time,
        *,
        timeout_s: float,
    ) -> None:
        self._link = RedisLink(address, timeout_s, keeps="the cache")
        self._largest_bytes = largest_bytes
        self._clock = clock

    def start(self) -> None:
        """Begin to connect."""
        self._link.start()

    def close(self) -> None:
        """Close the connections."""
        self._link.close()

    def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        """See `Answers.find`."""
        place = _place(tenant)
        found = self._link.run(_FIND, *(place + digest for digest in digests))
        if not found:
            return None
        answer = self._read(tenant, digests[int(found[0]) - 1], bytes(found[1]))
        return answer if answer.ends_s > self._clock() else None

    def _read(self, tenant: str, digest: str, value: bytes) -> KeptAnswer:
        if len(value) <= _TIMES.size:
            raise StorageFailed(f"{self._link.name}: a kept answer is damaged")
        made_s, ends_s = _TIMES.unpack_from(value)
        return KeptAnswer(tenant, digest, made_s, ends_s, uncompressed(value[_TIMES.size :], self._largest_bytes))

    def keep(self, answer: KeptAnswer, claim: Claim | None = None) -> None:
        """See `Answers.keep`."""
        ttl_ms = max(1, int(1000 * (answer.ends_s - answer.made_s)))
        value = _TIMES.pack(answer.made_s, answer.ends_s) + compressed(answer.content)
        given_up = () if claim is None else (_CLAIMS + claim.digest, claim.packed())
        self._link.run(_KEEP, _place(answer.tenant) + answer.digest, ttl_ms, value, *given_up)

    def claim(self, wanted: Claim, digests: Sequence[str], lease_s: float) -> KeptAnswer | Claim:
        """See `Answers.claim`."""
        place = _place(wanted.tenant)
        answers = (place + digest for digest in digests)
        found = self._link.run(_CLAIM, _CLAIMS + wanted.digest, wanted.packed(), int(1000 * lease_s), *answers)
        number, value = int(found[0]), bytes(found[1])
        return self._read(wanted.tenant, digests[number - 1], value) if number else wanted.held_by(value)

    def renew(self, claims: Collection[Claim], lease_s: float) -> None:
        """See `Answers.renew`."""
        held = (part for claim in claims for part in (_CLAIMS + claim.digest, claim.packed()))
        self._link.run(_RENEW, int(1000 * lease_s), *held)

    def release(self, claim: Claim) -> None:
        """See `Answers.release`."""
        self._link.run(_RENEW, 0, _CLAIMS + claim.digest, claim.packed())

    def clear(self, tenant: str | None = None) -> int:
        """See `Answers.clear`."""
        count = self._walk(tenant, delete=True).answers
        self._link.run(_KEEP, _CLEARED, int(1000 * CLEARING_KEPT_S), uuid.uuid4().hex)
        return count

    def clearing(self) -> str:
        """See `Answers.clearing`."""
        found = self._link.run(_FIND, _CLEARED)
        return bytes(found[1]).decode() if found else ""

    def holdings(self, tenant: str | None = None) -> Holdings:
        """See `Answers.holdings`."""
        return self._walk(tenant, delete=False)

    def _walk(self, tenant: str | None, *, delete: bool) -> Holdings:
        cursor, count, size_bytes = "0", 0, 0
        pattern = (_place(tenant) if tenant is not None else _ALL) + "*"
        while True:
            step: Any = self._link.run(_WALK, cursor, pattern, int(delete))
            cursor = step[0].decode()
            count, size_bytes = count + int(step[1]), size_bytes + int(step[2])
            if cursor == "0":
                return Holdings(count, size_bytes)


_ALL = "gateway:a:"
#: How the keys of claims begin; the digest has the tenant in it.
_CLAIMS = "gateway:m:"
_CLEARED = "gateway:cleared"


def _place(tenant: str) -> str:
    """How the keys of a tenant begin: names of tenants may have any character, and patterns read some of them."""
    return f"{_ALL}{hashlib.sha256(tenant.encode(errors='surrogatepass')).hexdigest()[:32]}:"
