-- Who changed since a stamp, oldest change first, and how it is with each now. ARGV: from which stamp on (with or without a
-- bracket, as ZRANGEBYSCORE wants it), how many at most.
-- Returns the epoch, the epoch told, the stamp of the last one (nil where there is none), ids one a line, and their records:
-- zeros for whom nothing is known any more.
local changes = redis.call('ZRANGEBYSCORE', CHANGES, ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local ids = {}
for i = 1, #changes, 2 do
    ids[#ids + 1] = changes[i]
end
local records = {}
if #ids > 0 then
    records = redis.call('HMGET', RECORDS, unpack(ids))
    for i = 1, #records do
        records[i] = records[i] or NOWHERE .. UNTOLD
    end
end
local known = redis.call('MGET', EPOCH, TOLD)
return { known[1], known[2], changes[#changes] or false, table.concat(ids, '\n'), table.concat(records) }
