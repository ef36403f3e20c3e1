-- Takes silent drivers out of the index, and forgets positions long past.
-- ARGV: silent at or before, impossible at or after (receipts of another clock), forgotten at or before, how many to look at.
-- Who changed longest ago is looked at first: a silent driver sinks to the bottom as the others report.
-- Returns how many were found silent, and how many positions were forgotten.
local silent_at_ms, impossible_at_ms, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local silent = 0
local time = redis.call('TIME')
-- the stamp before which an erased driver was erased so long ago that its last position counts nowhere any more
local unheard = time[1] * 1000000 + time[2] - (impossible_at_ms - silent_at_ms) * 1000
local ids = redis.call('ZRANGE', CHANGES, 0, limit - 1)
if #ids > 0 then
    local records = redis.call('HMGET', RECORDS, unpack(ids))
    for i, id in ipairs(ids) do
        local record = records[i]
        if not record then
            if tonumber(redis.call('ZSCORE', CHANGES, id)) < unheard then
                redis.call('ZREM', CHANGES, id) -- erased, and whoever reads the changes has had the time to hear of it
            end
        else
            local received_at_ms = struct.unpack('<i8', record, 25)
            if received_at_ms <= silent_at_ms or received_at_ms >= impossible_at_ms then
                leave(id, record)
                redis.call('ZREM', CHANGES, id)
                redis.call('ZADD', SILENT, received_at_ms, id)
                silent = silent + 1
            end
        end
    end
end
local past = redis.call('ZRANGEBYSCORE', SILENT, '-inf', ARGV[4], 'LIMIT', 0, limit)
for _, id in ipairs(past) do
    local record = redis.call('HGET', RECORDS, id)
    -- one that came back meanwhile is among the changes again, and stays
    if record and not redis.call('ZSCORE', CHANGES, id) then
        if state_of(record) == UNTOLD then
            redis.call('HDEL', RECORDS, id)
        else
            redis.call('HSET', RECORDS, id, NOWHERE .. state_of(record))
        end
    end
    redis.call('ZREM', SILENT, id)
end
settle_occupancy()
return { silent, #past }
