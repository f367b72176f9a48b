#!lua flags=allow-oom
-- purge.lua - forgets dead letters. ARGV: for each id and client. Returns how many there were.
local count = 0
for i = 1, #ARGV, 2 do
  if call('ZREM', DEAD, ARGV[i]) == 1 then
    count = count + 1
    call('HDEL', MSGS, ARGV[i])
    call('HDEL', TRIED, ARGV[i])
  end
end
return count
