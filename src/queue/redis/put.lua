#!lua
-- put.lua - accepts requests, each of them whole or not at all.
-- ARGV: time, how long keys are remembered, then for each request: client, key hash ('': none), payload hash, the
-- answer to remember, count, and for each message id and record.
-- Returns for each request: its position (from 1); 0: an id is known; -1: another payload under this key; or, for a
-- key that is remembered, the first answer with its position.
local now, keep = clock(ARGV[1]), tonumber(ARGV[2])
local requests, ids, at = {}, {}, 3
while at <= #ARGV do
  local r = {client = ARGV[at], key = ARGV[at + 1], payload = ARGV[at + 2], answer = ARGV[at + 3],
             first = at + 5, count = tonumber(ARGV[at + 4])}
  requests[#requests + 1] = r
  for i = 0, r.count - 1 do
    ids[#ids + 1] = ARGV[r.first + 2 * i]
  end
  at = r.first + 2 * r.count
end

local known = {}
local function note_known(key)
  for i, score in ipairs(lookup('ZMSCORE', key, ids)) do
    if score then
      known[ids[i]] = true
    end
  end
end
note_known(ALL)
if call('EXISTS', DEAD) == 1 then
  note_known(DEAD)
end

local function any_known(r)
  for i = 0, r.count - 1 do
    if known[ARGV[r.first + 2 * i]] then
      return true
    end
  end
end

-- The first answer to this key, if it is remembered.
local function remembered(r)
  local value = call('GET', P .. ':idem:' .. r.key)
  if not value or now - struct.unpack('>I8', value) > keep then
    return nil
  end
  return value:sub(9, 40) == r.payload and value:sub(41) or -1
end

local waiting = call('ZCARD', ALL) - call('ZCARD', LEASES)
local fields, members, clients, names = {}, {}, {}, {}

local function store(r)
  local queue = clients[r.client]
  if not queue then
    queue = {}
    clients[r.client] = queue
    names[#names + 1] = r.client
  end
  for i = 0, r.count - 1 do
    local id = ARGV[r.first + 2 * i]
    known[id] = true
    fields[#fields + 1] = id
    fields[#fields + 1] = ARGV[r.first + 2 * i + 1]
    members[#members + 1] = 0
    members[#members + 1] = id
    queue[#queue + 1] = id
  end
  local position = waiting + 1
  waiting = waiting + r.count
  if r.key ~= '' then
    call('SET', P .. ':idem:' .. r.key,
         struct.pack('>I8', now) .. r.payload .. r.answer .. struct.pack('>I8', position), 'PX', keep + 60000)
  end
  return position
end

local answers = {}
for i, r in ipairs(requests) do
  answers[i] = r.key ~= '' and remembered(r) or any_known(r) and 0 or store(r)
end
if #names > 0 then
  bulk('HSET', MSGS, fields)
  bulk('ZADD', ALL, members)
  for _, name in ipairs(names) do
    enqueue('RPUSH', name, clients[name])
  end
  local highest = call('ZREVRANGE', ALL, 0, 0)[1]
  if less(call('HGET', STATE, 'floor') or '', highest) then
    call('HSET', STATE, 'floor', highest)
  end
end
return answers
