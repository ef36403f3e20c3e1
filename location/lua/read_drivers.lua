-- The drivers of some cells, all of one instant: a driver on its way from one cell to another is seen once.
-- ARGV[2] 'these': the occupied ones among the cells ARGV[3...]; 'all_but': every occupied cell except those.
-- Returns three strings: ids, one a line; position records; state records.
local cells = {}
if ARGV[2] == 'these' then
    for from = 3, #ARGV, CHUNK do
        local to = math.min(from + CHUNK - 1, #ARGV)
        local counts = redis.call('HMGET', OCCUPANCY, unpack(ARGV, from, to))
        for i = 1, #counts do
            if counts[i] then
                cells[#cells + 1] = ARGV[from + i - 1]
            end
        end
    end
else
    local skipped = {}
    for i = 3, #ARGV do
        skipped[ARGV[i]] = true
    end
    for _, cell in ipairs(redis.call('HKEYS', OCCUPANCY)) do
        if not skipped[cell] then
            cells[#cells + 1] = cell
        end
    end
end
local ids, positions, states = {}, {}, {}
for _, cell in ipairs(cells) do
    local members = redis.call('ZRANGE', CELL_PREFIX .. cell, 0, -1)
    for from = 1, #members, CHUNK do
        local to = math.min(from + CHUNK - 1, #members)
        local some_positions = redis.call('HMGET', POSITIONS, unpack(members, from, to))
        local some_states = redis.call('HMGET', STATES, unpack(members, from, to))
        for i = 1, #some_positions do
            if some_positions[i] and some_states[i] then
                ids[#ids + 1] = members[from + i - 1]
                positions[#positions + 1] = some_positions[i]
                states[#states + 1] = some_states[i]
            end
        end
    end
end
return { table.concat(ids, '\n'), table.concat(positions), table.concat(states) }
