"""The scripts of matching's claims, sessions and stream of events: each is one step, on keys of one slot."""

from __future__ import annotations

from typing import Final

from hexhail.stores.script import Script

# Ours if nobody holds it, or if the holder's time is over by our clock: the key's own lifetime only collects garbage. Ours too
# if it was ours before: a ride that asks a driver again does not wait for its own last claim to be given back.
CLAIM: Final = Script.of(
    """
local expires_at_ms = string.format('%.0f', tonumber(ARGV[3]) + tonumber(ARGV[2]))
local won = {}
for number, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  local others = value and string.sub(value, 1, string.len(ARGV[1]) + 1) ~= ARGV[1] .. '|'
  local expires = others and tonumber(string.match(value, '|(%d+)$'))
  won[number] = (expires and expires > tonumber(ARGV[3])) and 0 or 1
  if won[number] == 1 then
    redis.call('SET', key, ARGV[1] .. '|' .. ARGV[3] .. '|' .. expires_at_ms, 'PX', ARGV[2])
  end
end
return won
"""
)

# A lock that has expired may belong to somebody else by now: delete it only while it holds our token.
RELEASE: Final = Script.of(
    """
for _, key in ipairs(KEYS) do
  local value = redis.call('GET', key)
  if value and string.sub(value, 1, string.len(ARGV[1]) + 1) == ARGV[1] .. '|' then redis.call('DEL', key) end
end
return 0
"""
)

DROP: Final = Script.of(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0
"""
)

# A session may have moved to another worker since: end or renew it only while it is still this worker's.
CLOSE_SESSION: Final = Script.of(
    """
local value = redis.call('GET', KEYS[1])
if value and string.sub(value, 1, string.len(ARGV[1]) + 1) == ARGV[1] .. '|' then return redis.call('DEL', KEYS[1]) end
return 0
"""
)

RENEW_SESSIONS: Final = Script.of(
    """
local ours, value = ARGV[1] .. '|', ARGV[1] .. '|' .. ARGV[2]
for _, key in ipairs(KEYS) do
  local held = redis.call('GET', key)
  if not held or string.sub(held, 1, string.len(ours)) == ours then redis.call('SET', key, value, 'PX', ARGV[3]) end
end
return 1
"""
)

# KEYS[1] the stream; ARGV: the last entry known, about how many entries are kept, then kind and envelope in turn.
APPEND: Final = Script.of(
    """
local id = ARGV[1]
if #redis.call('XRANGE', KEYS[1], id, id) == 0 then return false end
for i = 3, #ARGV, 2 do
  id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'kind', ARGV[i], 'envelope', ARGV[i + 1])
end
return id
"""
)

# ARGV: milliseconds that the entry's id lies above, about how many entries are kept, then the entry's fields. Ids grow across
# epochs, though the stream be empty and its server's clock behind: who reads on from an id of the last one misses nothing.
BEGIN: Final = Script.of(
    """
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local id = string.format('%.0f-0', math.max(now_ms, tonumber(ARGV[1]) + 1))
local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], id, unpack(ARGV, 3))
if type(added) == 'table' and added.err then
  added = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, 3))
end
return added
"""
)

SCRIPTS: Final = tuple(script.text for script in (CLAIM, RELEASE, DROP, CLOSE_SESSION, RENEW_SESSIONS, APPEND, BEGIN))
