"""Answers on a Redis or Valkey server, which forgets them by itself when their time is over."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.secret import Secret
from gateway.storage.answers import Holdings, KeptAnswer, compressed, uncompressed
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

#: ARGV: key, ttl_ms, value.
_KEEP = Script("""
redis.call('SET', ARGV[1], ARGV[3], 'PX', ARGV[2])
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
        number, value = int(found[0]), bytes(found[1])
        if len(value) <= _TIMES.size:
            raise StorageFailed(f"{self._link.name}: a kept answer is damaged")
        made_s, ends_s = _TIMES.unpack_from(value)
        if ends_s <= self._clock():
            return None
        content = uncompressed(value[_TIMES.size :], self._largest_bytes)
        return KeptAnswer(tenant, digests[number - 1], made_s, ends_s, content)

    def keep(self, answer: KeptAnswer) -> None:
        """See `Answers.keep`."""
        ttl_ms = max(1, int(1000 * (answer.ends_s - answer.made_s)))
        value = _TIMES.pack(answer.made_s, answer.ends_s) + compressed(answer.content)
        self._link.run(_KEEP, _place(answer.tenant) + answer.digest, ttl_ms, value)

    def clear(self, tenant: str | None = None) -> int:
        """See `Answers.clear`."""
        return self._walk(tenant, delete=True).answers

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


def _place(tenant: str) -> str:
    """How the keys of a tenant begin: names of tenants may have any character, and patterns read some of them."""
    return f"{_ALL}{hashlib.sha256(tenant.encode(errors='surrogatepass')).hexdigest()[:32]}:"
