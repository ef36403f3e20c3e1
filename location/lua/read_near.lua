-- The available drivers within a radius of a place, all of one instant: one on its way from cell to cell is seen once.
-- ARGV[2...]: longitude, latitude, metres, and 'these': the occupied ones among the cells that follow; or 'all_but': every
-- occupied cell except those.
-- Returns the epoch, the epoch told, ids one a line, and their records.
local lng, lat, radius_m = ARGV[2], ARGV[3], ARGV[4]
local names = {}
if ARGV[5] == 'these' then
    for from = 6, #ARGV, CHUNK do
        local to = math.min(from + CHUNK - 1, #ARGV)
        local counts = redis.call('HMGET', OCCUPANCY, unpack(ARGV, from, to))
        for i = 1, #counts do
            if counts[i] then
                names[#names + 1] = ARGV[from + i - 1]
            end
        end
    end
else
    local skipped = {}
    for i = 6, #ARGV do
        skipped[ARGV[i]] = true
    end
    for _, name in ipairs(redis.call('HKEYS', OCCUPANCY)) do
        if not skipped[name] then
            names[#names + 1] = name
        end
    end
end
local ids = {}
for _, name in ipairs(names) do
    local found = redis.call('GEOSEARCH', CELL_PREFIX .. name, 'FROMLONLAT', lng, lat, 'BYRADIUS', radius_m, 'm')
    for i = 1, #found do
        ids[#ids + 1] = found[i]
    end
end
local records = {}
for from = 1, #ids, CHUNK do
    records[#records + 1] = table.concat(redis.call('HMGET', RECORDS, unpack(ids, from, math.min(from + CHUNK - 1, #ids))))
end
local known = redis.call('MGET', EPOCH, TOLD)
return { known[1], known[2], table.concat(ids, '\n'), table.concat(records) }
