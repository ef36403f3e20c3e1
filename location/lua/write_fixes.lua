-- Takes in fixes of distinct drivers. ARGV[2...]: driver id, position record, in turn (at most 256 pairs).
-- Returns a digit per fix: 1 taken in (or there already: the repeat of a write whose reply was lost), 0 not newer.
local ids = {}
for i = 2, #ARGV, 2 do
    ids[#ids + 1] = ARGV[i]
end
local olds = redis.call('HMGET', POSITIONS, unpack(ids))
local states = redis.call('HMGET', STATES, unpack(ids))
local taken, records, receipts = {}, {}, {}
for i, id in ipairs(ids) do
    local old, new = olds[i], ARGV[2 * i + 1]
    local session, sequence, received_at_ms = struct.unpack('<i8i8i8', new, 9)
    local newer = true
    if old then
        local old_session, old_sequence = struct.unpack('<i8i8', old, 9)
        newer = session > old_session or (session == old_session and sequence > old_sequence)
    end
    taken[i] = (newer or old == new) and '1' or '0'
    if newer then
        if is_available(states[i]) then
            if old and string.sub(old, 1, 8) ~= string.sub(new, 1, 8) then
                leave(id, old)
            end
            enter(id, new)
        end
        records[#records + 1] = id
        records[#records + 1] = new
        receipts[#receipts + 1] = received_at_ms
        receipts[#receipts + 1] = id
    end
end
if #records > 0 then
    redis.call('HSET', POSITIONS, unpack(records))
    redis.call('ZADD', RECEIPTS, unpack(receipts))
end
settle_occupancy()
return table.concat(taken)
