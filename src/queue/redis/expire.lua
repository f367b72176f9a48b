#!lua flags=allow-oom
-- expire.lua - ends leases that have run out; each counts as an attempt, and the message is due at once.
-- ARGV: time, how many at most, reason, how long keys are remembered. Returns how many it ended.
local now = clock(ARGV[1])
forget_keys(now, tonumber(ARGV[4]))
local ids = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, ARGV[2])
for i, value in ipairs(lookup('HMGET', HELD, ids)) do
  if value then
    attempt(ids[i], hold_of(value), ARGV[3], now, now)
  end
end
bulk('HDEL', HELD, ids)
bulk('ZREM', LEASES, ids)
return #ids
