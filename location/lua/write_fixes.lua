-- Takes in fixes of distinct drivers, those of one cell side by side. ARGV[2...]: driver ids, positions, GEO scores, each a
-- msgpack array (at most 256 long).
-- Returns a digit per fix: 0 not newer than what is known; else 1 + the driver's availability (1 where nothing was told).
-- The very position that is known already counts as taken in: the repeat of a write whose reply was lost.
local ids, news, scores = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4])
local olds = redis.call('HMGET', RECORDS, unpack(ids))
local stamp = next_stamp()
local sub, byte, read = string.sub, string.byte, struct.unpack
local replies, records, stamps, size = {}, {}, {}, 0
local group, group_size, group_cell = {}, 0, nil

local function settle_group()
    if group_cell then
        local name = cell_name(group_cell)
        note(name, redis.call('ZADD', CELL_PREFIX .. name, unpack(group)))
    end
end

for i = 1, #ids do
    local id, old, new = ids[i], olds[i], news[i]
    local state, newer, availability = UNTOLD, true, 0
    if old then
        local session, sequence = read('<i8i8', new, 9)
        local old_session, old_sequence = read('<i8i8', old, 9)
        newer = session > old_session or (session == old_session and sequence > old_sequence)
        state, availability = sub(old, 59), byte(old, 73)
    end
    replies[i] = (newer or position_of(old) == new) and availability + 1 or 0
    if newer then
        records[size + 1], records[size + 2] = id, new .. state
        stamps[size + 1], stamps[size + 2] = stamp, id
        size = size + 2
        if availability == AVAILABLE then
            local cell, old_cell = sub(new, 1, 8), sub(old, 1, 8)
            if old_cell ~= cell and old_cell ~= NO_CELL then
                leave(id, old)
            end
            if cell ~= group_cell then
                settle_group()
                group, group_size, group_cell = {}, 0, cell
            end
            group[group_size + 1], group[group_size + 2] = scores[i], id
            group_size = group_size + 2
        end
    end
end
settle_group()
if size > 0 then
    redis.call('HSET', RECORDS, unpack(records))
    redis.call('ZADD', CHANGES, unpack(stamps))
end
settle_occupancy()
return table.concat(replies)
