#!lua flags=allow-oom
-- settle.lua - verdicts on leased messages: 'd' done, 'r' retry, 'x' dead, 'u' untried.
-- ARGV: time, then for each message id, token, verdict, wait in milliseconds, reason.
-- Returns a character for each: '1' the lease was no longer theirs, '0' settled.
local now = clock(ARGV[1])
local ids = {}
for i = 2, #ARGV, 5 do
  ids[#ids + 1] = ARGV[i]
end
local holds = lookup('HMGET', HELD, ids)
local ended, done, untried, stale = {}, {}, {}, {}
local seen = {}

for i, id in ipairs(ids) do
  local at = 5 * i - 3
  local hold = holds[i] and not seen[id] and hold_of(holds[i])
  if not hold or hold.token ~= ARGV[at + 1] then
    stale[i] = '1'
  else
    stale[i] = '0'
    seen[id] = true
    ended[#ended + 1] = id
    local verdict = ARGV[at + 2]
    if verdict == 'd' then
      done[#done + 1] = id
    elseif verdict == 'u' then
      untried[#untried + 1] = {id, hold}
    else
      attempt(id, hold, ARGV[at + 4], now, verdict == 'r' and now + tonumber(ARGV[at + 3]) or nil)
    end
  end
end
for i = #untried, 1, -1 do
  give_back(unpack(untried[i]))
end
bulk('HDEL', HELD, ended)
bulk('ZREM', LEASES, ended)
bulk('HDEL', MSGS, done)
bulk('ZREM', ALL, done)
bulk('HDEL', TRIED, done)
return table.concat(stale)
