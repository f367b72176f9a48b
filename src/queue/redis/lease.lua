#!lua flags=allow-oom
-- lease.lua - hands out what is due: new messages and retries in equal parts while there are both, and within each
-- part the clients in turn, so that neither starves the other.
-- ARGV: time, how many at most, length of the lease, token, worker, the lane that comes first ('f' or 'r').
-- Returns id, attempts, record of each; nothing while delivery is paused, also to a process that has not heard of it.
local now, max, token, worker = clock(ARGV[1]), tonumber(ARGV[2]), ARGV[4], ARGV[5]
local deadline = now + tonumber(ARGV[3])
if call('HGET', STATE, 'delivery_paused') == '1' then
  return {}
end
local taken, holds, deadlines = {}, {}, {}

local function take(id, client, lane)
  taken[#taken + 1] = id
  holds[#holds + 1] = id
  holds[#holds + 1] = token .. lane .. struct.pack('Bc0', #client, client) .. worker
  deadlines[#deadlines + 1] = deadline
  deadlines[#deadlines + 1] = id
end

-- The client at the front of the ring gives up to `share` and goes to its end.
local function serve(share)
  local client = call('LPOP', RING)
  for _, id in ipairs(call('LPOP', P .. ':c:' .. client, share) or {}) do
    take(id, client, 'f')
  end
  head_changed(client, false)
end

local function take_fresh(wanted)
  local goal = #taken + wanted
  while #taken < goal do
    local clients = call('LLEN', RING)
    if clients == 0 then
      return
    end
    serve(math.max(1, math.floor((goal - #taken) / clients)))
  end
end

-- Retries: clients in turn within a window of those due longest.
local WINDOW = 256

local function due_by_client(limit)
  local queues, names = {}, {}
  for _, member in ipairs(call('ZRANGEBYSCORE', RETRY, '-inf', now, 'LIMIT', 0, limit)) do
    local client = member:sub(17)
    if not queues[client] then
      queues[client] = {}
      names[#names + 1] = client
    end
    table.insert(queues[client], member)
  end
  table.sort(names, less)
  return queues, names
end

-- The place in `names` behind the client that was served last.
local function turn_of(names)
  local last = call('HGET', STATE, 'retry_turn') or ''
  for i, name in ipairs(names) do
    if less(last, name) then
      return i
    end
  end
  return 1
end

local function take_retries(wanted)
  if wanted == 0 then
    return
  end
  local queues, names = due_by_client(math.max(WINDOW, 2 * wanted))
  local members, given, place, idle = {}, {}, turn_of(names), 0
  while #members < wanted and idle < #names do
    local name = names[place]
    given[name] = (given[name] or 0) + 1
    local member = queues[name][given[name]]
    if member then
      members[#members + 1] = member
      take(member:sub(1, 16), name, 'r')
    end
    idle = member and 0 or idle + 1
    place = place % #names + 1
  end
  if #members > 0 then
    bulk('ZREM', RETRY, members)
    call('HSET', STATE, 'retry_turn', members[#members]:sub(17))
  end
end

local first, second = take_fresh, take_retries
if ARGV[6] == 'r' then
  first, second = second, first
end
first(math.ceil(max / 2))
second(max - #taken)
first(max - #taken)
if #taken == 0 then
  return {}
end
bulk('HSET', HELD, holds)
bulk('ZADD', LEASES, deadlines)

local records, tried, rows = lookup('HMGET', MSGS, taken), lookup('HMGET', TRIED, taken), {}
for i, id in ipairs(taken) do
  rows[#rows + 1] = id
  rows[#rows + 1] = tried[i] and (struct.unpack('>I4', tried[i])) or 0
  rows[#rows + 1] = records[i] or ''
end
return rows
