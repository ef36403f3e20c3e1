-- Forgets drivers altogether. ARGV[2...]: driver ids. Returns how many were known.
-- An erased driver stays among the changes without a record for twice the limit of freshness, so that watchers hear of it.
local stamp = next_stamp()
local known = 0
for i = 2, #ARGV do
    local id = ARGV[i]
    local record = redis.call('HGET', RECORDS, id)
    if record then
        known = known + 1
        if is_placed(record) then
            leave(id, record)
        end
        redis.call('HDEL', RECORDS, id)
        redis.call('ZADD', CHANGES, 'XX', stamp, id)
    end
    redis.call('ZREM', SILENT, id)
end
settle_occupancy()
return known
