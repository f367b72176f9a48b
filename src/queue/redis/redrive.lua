#!lua
-- redrive.lua - dead letters wait again, as if never tried; their history stays.
-- ARGV: for each id and client. Returns how many there were.
local count = 0
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  if call('ZREM', DEAD, id) == 1 then
    count = count + 1
    call('ZADD', ALL, 0, id)
    call('HSET', TRIED, id, struct.pack('>I4I8', 0, 0) .. (call('HGET', TRIED, id) or ''):sub(13))
    enqueue('RPUSH', ARGV[i + 1], {id})
  end
end
return count
