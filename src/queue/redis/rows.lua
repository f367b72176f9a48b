#!lua flags=no-writes
-- rows.lua - messages as an administrator sees them: the ids asked for, or what a page may consist of.
-- ARGV: 'i' and ids, or 'p', sets ('a' not failed, 'd' dead letters, 'b' both), the id at which the page starts, and how
-- many of each set. Returns id, record, tried, leased, dead of each that is there, in no order.
local ids = {}
if ARGV[1] == 'i' then
  ids = {unpack(ARGV, 2)}
else
  for name, set in pairs({a = ALL, d = DEAD}) do
    if ARGV[2] == 'b' or ARGV[2] == name then
      for _, id in ipairs(call('ZRANGEBYLEX', set, '[' .. ARGV[3], '+', 'LIMIT', 0, ARGV[4])) do
        ids[#ids + 1] = id
      end
    end
  end
end
local records, tried, held = lookup('HMGET', MSGS, ids), lookup('HMGET', TRIED, ids), lookup('HMGET', HELD, ids)
local dead, rows = lookup('ZMSCORE', DEAD, ids), {}
for i, id in ipairs(ids) do
  if records[i] then
    for _, v in ipairs({id, records[i], tried[i] or '', held[i] and 1 or 0, dead[i] and 1 or 0}) do
      rows[#rows + 1] = v
    end
  end
end
return rows
