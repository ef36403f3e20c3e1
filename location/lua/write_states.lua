-- Takes in what matching says. ARGV[2...]: driver id, state, in turn. Returns how many were newer than what was known.
local stamp = next_stamp()
local applied = 0
for i = 2, #ARGV, 2 do
    local id, new = ARGV[i], ARGV[i + 1]
    local old = redis.call('HGET', RECORDS, id) or NOWHERE .. UNTOLD
    if struct.unpack('<i8', new) > struct.unpack('<i8', old, 59) or state_of(old) == UNTOLD then
        applied = applied + 1
        redis.call('HSET', RECORDS, id, position_of(old) .. new)
        if is_placed(old) and redis.call('ZSCORE', CHANGES, id) then
            redis.call('ZADD', CHANGES, stamp, id)
            if availability_of(new) == AVAILABLE then
                enter(id, old)
            else
                leave(id, old)
            end
        end
    end
end
settle_occupancy()
return applied
