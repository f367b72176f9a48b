#!lua flags=no-writes
-- look.lua - what the partition holds. ARGV: time.
-- Returns: time, not failed, leased, dead, waiting for a retry, the oldest id not failed, the highest id ever, and the
-- moments at which the first new message, retry, end of a lease is or was due ('' for none), then the pauses, and how
-- many keys are remembered.
local function first_score(key)
  return call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or ''
end
local state = call('HMGET', STATE, 'floor', 'accept_paused', 'accept_reason', 'delivery_paused', 'delivery_reason',
                   'keys')
for i = 1, 5 do
  state[i] = state[i] or ''
end
return {clock(ARGV[1]), call('ZCARD', ALL), call('ZCARD', LEASES), call('ZCARD', DEAD), call('ZCARD', RETRY),
        call('ZRANGE', ALL, 0, 0)[1] or '', state[1], first_score(HEADS), first_score(RETRY), first_score(LEASES),
        state[2], state[3], state[4], state[5], tonumber(state[6] or 0)}
