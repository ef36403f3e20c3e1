-- Takes in what matching says. ARGV[2...]: driver id, state record, in turn. Returns how many were newer than what was known.
local applied = 0
for i = 2, #ARGV, 2 do
    local id, new = ARGV[i], ARGV[i + 1]
    local old = redis.call('HGET', STATES, id)
    if not old or struct.unpack('<i8', new) > struct.unpack('<i8', old) then
        applied = applied + 1
        redis.call('HSET', STATES, id, new)
        local position = redis.call('HGET', POSITIONS, id)
        if position then
            if not is_available(new) then
                leave(id, position)
            elseif redis.call('ZSCORE', RECEIPTS, id) then
                enter(id, position)
            end
        end
    end
end
settle_occupancy()
return applied
