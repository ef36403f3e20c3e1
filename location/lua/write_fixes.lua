-- Takes in fixes of distinct drivers, those of one cell side by side. ARGV[2...]: driver ids, positions, GEO scores, each a
-- msgpack array (at most 256 long).
-- Returns a digit per fix: 0 not newer than what is known; else 1 + the driver's availability (1 where nothing was told).
-- The very position that is known already counts as taken in: the repeat of a write whose reply was lost.
local ids, news, scores = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
local olds = redis.call('HMGET', RECORDS, unpack(ids))
local stamp = next_stamp()
local replies, records, stamps = {}, {}, {}
local group, group_cell = {}, nil

local function settle_group()
    if group_cell then
        local name = cell_name(group_cell)
        gain(name, redis.call('ZADD', CELL_PREFIX .. name, unpack(group)))
    end
end

for i = 1, #ids do
    local id, old, new = ids[i], olds[i], news[i]
    local state, newer = UNTOLD, true
    if old then
        state = state_of(old)
        local session, sequence = struct.unpack('<i8i8', new, 9)
        local old_session, old_sequence = struct.unpack('<i8i8', old, 9)
        newer = session > old_session or (session == old_session and sequence > old_sequence)
    end
    local availability = availability_of(state)
    replies[i] = (newer or position_of(old) == new) and availability + 1 or 0
    if newer then
        local row = #records
        records[row + 1], records[row + 2] = id, new .. state
        stamps[row + 1], stamps[row + 2] = stamp, id
        if availability == AVAILABLE then
            local cell = string.sub(new, 1, 8)
            if is_placed(old) and string.sub(old, 1, 8) ~= cell then
                leave(id, old)
            end
            if cell ~= group_cell then
                settle_group()
                group, group_cell = {}, cell
            end
            group[#group + 1] = scores[i]
            group[#group + 1] = id
        end
    end
end
settle_group()
if #records > 0 then
    redis.call('HSET', RECORDS, unpack(records))
    redis.call('ZADD', CHANGES, unpack(stamps))
end
settle_occupancy()
return table.concat(replies)
