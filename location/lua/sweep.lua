-- Takes silent drivers out of the index, and forgets positions long past.
-- ARGV: silent at or before, impossible at or after (receipts of another clock), forgotten at or before, how many at most.
-- Returns how many were found silent, and how many were forgotten.
local limit = ARGV[5]
local silent = redis.call('ZRANGEBYSCORE', RECEIPTS, '-inf', ARGV[2], 'LIMIT', 0, limit)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', RECEIPTS, ARGV[3], '+inf', 'LIMIT', 0, limit)) do
    silent[#silent + 1] = id
end
for _, id in ipairs(silent) do
    local position = redis.call('HGET', POSITIONS, id)
    if position then
        leave(id, position)
        redis.call('ZADD', SILENT, struct.unpack('<i8', position, 25), id)
    end
    redis.call('ZREM', RECEIPTS, id)
end
local past = redis.call('ZRANGEBYSCORE', SILENT, '-inf', ARGV[4], 'LIMIT', 0, limit)
for _, id in ipairs(past) do
    -- one that came back meanwhile is in the receipts again, and stays
    if not redis.call('ZSCORE', RECEIPTS, id) then
        redis.call('HDEL', POSITIONS, id)
    end
    redis.call('ZREM', SILENT, id)
end
settle_occupancy()
return { #silent, #past }
