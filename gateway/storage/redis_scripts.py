"""What Redis and Valkey run for `RedisCounters`: one Lua script for each verb, so each is atomic.

All keys begin with `gateway:`. A counter is a hash of slots (`c:`), a reservation is a JSON list (`r:`), a number is
`n:`, a text `t:`; `leases` is a sorted set of reservations by their end. Redis turns whole numbers of Lua into texts
with 14 digits, so amounts stay texts or go through `string.format`. The arithmetic is that of `core/windows.py`.

Needs Redis 6.2 or Valkey 7.2: a script that asks for the time may write since Redis 5, and `PEXPIRE` and `SET … PX`
are older still.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Script:
    """A script and the name that the server knows it by."""

    text: str = field(repr=False)

    @property
    def sha(self) -> str:
        """The name: SHA-1 of its text (`EVALSHA`)."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# ARGV[1] is a time in milliseconds, or nothing: then it is the server's own.
_CLOCK = """
local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local now = redis.call('TIME')
  return tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
end
local now = clock()
local function whole(number) return string.format('%.0f', number) end
"""

_WINDOWS = (
    _CLOCK
    + """
local function slot_at(slot_ms)
  if slot_ms == 0 then return 0 end
  return math.floor(now / slot_ms)
end

-- The slots that count, having deleted those that do not and moved those ahead of the clock to the one that is now.
local function live(counter, slot_ms, slots)
  local key, current = 'gateway:c:' .. counter, slot_at(slot_ms)
  local found, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local slot, amount = tonumber(flat[i]), tonumber(flat[i + 1])
    if slot < current - slots then
      redis.call('HDEL', key, flat[i])
    else
      if slot > current then
        redis.call('HINCRBY', key, whole(current), flat[i + 1])  -- first: an empty hash would lose its end
        redis.call('HDEL', key, flat[i])
        slot = current
      end
      found[slot] = (found[slot] or 0) + amount
    end
  end
  return found
end

local function count(counter, slot_ms, keep_ms, amount)
  local key = 'gateway:c:' .. counter
  redis.call('HINCRBY', key, whole(slot_at(slot_ms)), amount)
  redis.call('PEXPIRE', key, keep_ms)
end

local function take_back(counter, slot_ms, slots, slot, amount)
  local key = 'gateway:c:' .. counter
  live(counter, slot_ms, slots)
  slot = math.min(slot, slot_at(slot_ms))
  local there = tonumber(redis.call('HGET', key, whole(slot)) or '0')
  local less = math.min(there, amount)
  if less > 0 then redis.call('HINCRBY', key, whole(slot), whole(-less)) end  -- -0 is no number of Redis'
end

-- A lease that ends later than any can was given before the clock was set back.
local function take_back_overdue(longest_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'gateway:leases', '(' .. whole(now + longest_ms), '+inf',
      'LIMIT', 0, 500)) do
    redis.call('ZADD', 'gateway:leases', whole(now + longest_ms), id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'gateway:leases', '-inf', whole(now), 'LIMIT', 0, 500)) do
    local held = redis.call('GET', 'gateway:r:' .. id)
    if held and held ~= 'settled' then
      for _, one in ipairs(cjson.decode(held)) do
        take_back(one[1], tonumber(one[2]), tonumber(one[3]), tonumber(one[4]), tonumber(one[5]))
      end
      redis.call('DEL', 'gateway:r:' .. id)
    end
    redis.call('ZREM', 'gateway:leases', id)
  end
end

local function flat(slots)
  local list = {}
  for slot, amount in pairs(slots) do
    list[#list + 1] = whole(slot)
    list[#list + 1] = whole(amount)
  end
  return list
end
"""
)

#: ARGV: time, longest lease, lease (0: look only), id, how long a reservation is known at most; then for each claim
#: counter, slot_ms, slots, keep_ms, amount, limit or nothing, whether it has to be opened (1). Returns: admitted, the
#: time, and each claim's slots that count, without the claim, as slot and amount in turn.
RESERVE = Script(
    _WINDOWS
    + """
take_back_overdue(tonumber(ARGV[2]))
local admitted, answer = 1, {}
for i = 6, #ARGV, 7 do
  local slots, used = live(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])), 0
  for _, amount in pairs(slots) do used = used + amount end
  if ARGV[i + 5] ~= '' and used + tonumber(ARGV[i + 4]) > tonumber(ARGV[i + 5]) then admitted = 0 end
  if ARGV[i + 6] == '1' and next(slots) == nil then admitted = 0 end
  answer[#answer + 1] = flat(slots)
end
if admitted == 1 and ARGV[3] ~= '0' then
  local held = {}
  for i = 6, #ARGV, 7 do
    local slot_ms = tonumber(ARGV[i + 1])
    count(ARGV[i], slot_ms, ARGV[i + 3], ARGV[i + 4])
    held[#held + 1] = {ARGV[i], ARGV[i + 1], ARGV[i + 2], whole(slot_at(slot_ms)), ARGV[i + 4]}
  end
  redis.call('SET', 'gateway:r:' .. ARGV[4], cjson.encode(held), 'PX', ARGV[5])
  redis.call('ZADD', 'gateway:leases', whole(now + tonumber(ARGV[3])), ARGV[4])
end
return {admitted, whole(now), answer}
"""
)

#: ARGV: time, longest lease, counter, keep_ms, amount. Returns 0 where the counter is there.
OPEN = Script(
    _WINDOWS
    + """
take_back_overdue(tonumber(ARGV[2]))
if redis.call('EXISTS', 'gateway:c:' .. ARGV[3]) == 1 then return 0 end
local amount = tonumber(ARGV[5])
for _, id in ipairs(redis.call('ZRANGE', 'gateway:leases', 0, -1)) do
  local held = redis.call('GET', 'gateway:r:' .. id)
  if held and held ~= 'settled' then
    for _, one in ipairs(cjson.decode(held)) do
      if one[1] == ARGV[3] then amount = amount + tonumber(one[5]) end
    end
  end
end
count(ARGV[3], 0, ARGV[4], whole(amount))
return 1
"""
)

#: ARGV: time, longest lease, id, how long it is known to be settled; then for each claim counter, slot_ms, slots,
#: keep_ms, real amount, whether it has to be opened (1). Returns 0 where it was settled before.
SETTLE = Script(
    _WINDOWS
    + """
take_back_overdue(tonumber(ARGV[2]))
local key = 'gateway:r:' .. ARGV[3]
local held, before = redis.call('GET', key), {}
if held == 'settled' then return 0 end
if held then
  for _, one in ipairs(cjson.decode(held)) do before[one[1]] = one end
end
redis.call('ZREM', 'gateway:leases', ARGV[3])
for i = 5, #ARGV, 6 do
  local counter, slot_ms, slots, one = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), before[ARGV[i]]
  local more = tonumber(ARGV[i + 4]) - tonumber(one and one[5] or '0')
  if more > 0 then
    local there = next(live(counter, slot_ms, slots)) ~= nil
    if there or ARGV[i + 5] ~= '1' then count(counter, slot_ms, ARGV[i + 3], whole(more)) end
  elseif more < 0 then
    take_back(counter, slot_ms, slots, tonumber(one[4]), -more)
  end
end
redis.call('SET', key, 'settled', 'PX', ARGV[4])
return 1
"""
)

#: ARGV: time, lease, ids. Returns the ids that were still held.
RENEW = Script(
    _CLOCK
    + """
local renewed = {}
for i = 3, #ARGV do
  local ends = redis.call('ZSCORE', 'gateway:leases', ARGV[i])
  if ends and tonumber(ends) > now then
    redis.call('ZADD', 'gateway:leases', whole(now + tonumber(ARGV[2])), ARGV[i])
    renewed[#renewed + 1] = ARGV[i]
  end
end
return renewed
"""
)

#: ARGV: key, amount, ttl_ms. Returns the new number, as a text.
ADD = Script("""
local key = 'gateway:n:' .. ARGV[1]
local number = redis.call('INCRBY', key, ARGV[2])
local left = redis.call('PTTL', key)
if left < 0 or left > tonumber(ARGV[3]) then redis.call('PEXPIRE', key, ARGV[3]) end
return redis.call('GET', key)
""")

#: ARGV: keys. Returns a number or nothing for each.
GET = Script("""
local found = {}
for i = 1, #ARGV do found[i] = redis.call('GET', 'gateway:' .. ARGV[i]) end
return found
""")

#: ARGV: key, whether there has to be one before, that one, whether there is one after, that one, ttl_ms. Returns 1
#: where it was as it had to be.
SWAP = Script("""
local key = 'gateway:t:' .. ARGV[1]
local there = redis.call('GET', key)
if ARGV[2] == '1' then
  if there ~= ARGV[3] then return 0 end
elseif there then
  return 0
end
if ARGV[4] == '1' then redis.call('SET', key, ARGV[5], 'PX', ARGV[6]) else redis.call('DEL', key) end
return 1
""")

#: Writes, so that a server that only reads shows it.
CHECK = Script("""
redis.call('SET', 'gateway:check', '1', 'PX', 60000)
return 'OK'
""")
