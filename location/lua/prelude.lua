-- What all scripts of a bucket share. KEYS: records, changes, silent, occupancy, stamp, epoch, told. ARGV[1]: prefix of its cells' keys.
-- A record is a position (58 bytes, zeros where none is known) and a state (15 bytes, zeros where matching has said nothing).
-- Invariant: a driver is in the set of its position's cell exactly while it is available and in `changes`.
local RECORDS, CHANGES, SILENT, OCCUPANCY = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local STAMP, EPOCH, TOLD = KEYS[5], KEYS[6], KEYS[7]
local CELL_PREFIX = ARGV[1]
local NOWHERE, UNTOLD, NO_CELL = string.rep('\0', 58), string.rep('\0', 15), string.rep('\0', 8)
local AVAILABLE = 2
local CHUNK = 4000 -- arguments of one call: Lua's stack holds about twice as many
local changed = {}

local function position_of(record)
    return string.sub(record, 1, 58)
end

local function state_of(record)
    return string.sub(record, 59)
end

local function is_placed(record)
    return string.sub(record, 1, 58) ~= NOWHERE
end

local function availability_of(state)
    return string.byte(state, 15)
end

local function cell_name(cell)
    local low, high = struct.unpack('<I4I4', cell)
    return string.format('%x%08x', high, low)
end

local function note(name, changes)
    if changes ~= 0 then
        changed[name] = true
    end
end

-- The replies of ZADD, GEOADD and ZREM say which cells changed; those are counted anew, whatever was thought of them before.
local function enter(id, position)
    local name = cell_name(string.sub(position, 1, 8))
    local lat_e7, lng_e7 = struct.unpack('<i4i4', position, 41)
    note(name, redis.call('GEOADD', CELL_PREFIX .. name, lng_e7 / 1e7, lat_e7 / 1e7, id))
end

local function leave(id, position)
    local name = cell_name(string.sub(position, 1, 8))
    note(name, redis.call('ZREM', CELL_PREFIX .. name, id))
end

local function settle_occupancy()
    for name in pairs(changed) do
        local count = redis.call('ZCARD', CELL_PREFIX .. name)
        if count > 0 then
            redis.call('HSET', OCCUPANCY, name, count)
        else
            redis.call('HDEL', OCCUPANCY, name)
        end
    end
end

-- The stamp of a change: the server's time in microseconds, and always above the last, so that whoever has read as far as one
-- stamp finds all that came later above it, after a failover with a lost tail too.
local function next_stamp()
    local time = redis.call('TIME')
    local stamp = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('GET', STAMP)) or 0) + 1)
    local text = string.format('%.0f', stamp)
    redis.call('SET', STAMP, text)
    return text
end
