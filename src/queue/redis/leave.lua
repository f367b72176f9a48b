#!lua flags=allow-oom
-- leave.lua - gives back everything that a process holds, untried. ARGV: what its tokens start with.
local mine = {}
local held = call('HGETALL', HELD)
for i = 1, #held, 2 do
  if held[i + 1]:sub(1, #ARGV[1]) == ARGV[1] then
    mine[#mine + 1] = held[i]
  end
end
table.sort(mine, less)
for i = #mine, 1, -1 do
  give_back(mine[i], hold_of(call('HGET', HELD, mine[i])))
end
bulk('HDEL', HELD, mine)
bulk('ZREM', LEASES, mine)
return #mine
