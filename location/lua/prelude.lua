-- What all scripts share. KEYS: positions, states, receipts, occupancy, silent of one bucket. ARGV[1]: prefix of its cells' keys.
-- Invariant: a driver is in the set of its position's cell exactly while it is available and in `receipts`.
local POSITIONS, STATES, RECEIPTS, OCCUPANCY, SILENT = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local CELL_PREFIX = ARGV[1]
local AVAILABLE = 2
local CHUNK = 4000 -- arguments of one call: Lua's stack holds about twice as many
local changes = {}

local function cell_of(position)
    local low, high = struct.unpack('<I4I4', position)
    return string.format('%x%08x', high, low)
end

local function is_available(state)
    return state and string.byte(state, 15) == AVAILABLE
end

-- The replies of GEOADD and ZREM say whether anything changed: that keeps the occupancy exact, whatever was there before.
local function enter(id, position)
    local cell = cell_of(position)
    local lat_e7, lng_e7 = struct.unpack('<i4i4', position, 41)
    if redis.call('GEOADD', CELL_PREFIX .. cell, lng_e7 / 1e7, lat_e7 / 1e7, id) == 1 then
        changes[cell] = (changes[cell] or 0) + 1
    end
end

local function leave(id, position)
    local cell = cell_of(position)
    if redis.call('ZREM', CELL_PREFIX .. cell, id) == 1 then
        changes[cell] = (changes[cell] or 0) - 1
    end
end

local function settle_occupancy()
    for cell, change in pairs(changes) do
        if change ~= 0 and redis.call('HINCRBY', OCCUPANCY, cell, change) <= 0 then
            redis.call('HDEL', OCCUPANCY, cell)
        end
    end
end
