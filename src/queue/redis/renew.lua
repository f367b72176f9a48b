#!lua flags=allow-oom
-- renew.lua - extends leases. ARGV: time, length, then for each message id and token.
-- Returns how many were no longer theirs.
local deadline, stale = clock(ARGV[1]) + tonumber(ARGV[2]), 0
for i = 3, #ARGV, 2 do
  local value = call('HGET', HELD, ARGV[i])
  if value and value:sub(1, 8) == ARGV[i + 1] then
    call('ZADD', LEASES, deadline, ARGV[i])
  else
    stale = stale + 1
  end
end
return stale
