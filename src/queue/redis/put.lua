#!lua
-- put.lua - accepts requests, each of them whole or not at all.
-- ARGV: time, how long keys are remembered, then for each request: client, key hash ('': none), payload hash, the
-- answer to remember, how many keys this partition may remember ('': any number), count, and for each message id and
-- record.
-- Returns for each request: its position (from 1); 0: an id is known; -1: another payload under this key; -2: too many
-- keys; or, for a key that is remembered, the first answer with its position.
local now, keep = clock(ARGV[1]), tonumber(ARGV[2])
local requests, ids, at = {}, {}, 3
while at <= #ARGV do
  local r = {client = ARGV[at], key = ARGV[at + 1], payload = ARGV[at + 2], answer = ARGV[at + 3],
             keys_max = tonumber(ARGV[at + 4]), first = at + 6, count = tonumber(ARGV[at + 5])}
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
local keys_before, keys_added = nil, 0

-- Whether the request has a new key, and there is no room for one.
local function is_full(r)
  if r.key == '' or not r.keys_max then
    return false
  end
  keys_before = keys_before or tonumber(call('HGET', STATE, 'keys') or 0)
  return keys_before + keys_added >= r.keys_max
end

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
         struct.pack('>I8', now) .. r.payload .. r.answer .. struct.pack('>I8', position), 'PX', keep + KEY_LATE_MS)
    keys_added = keys_added + 1
  end
  return position
end

local answers = {}
for i, r in ipairs(requests) do
  answers[i] = r.key ~= '' and remembered(r) or any_known(r) and 0 or is_full(r) and -2 or store(r)
end
if keys_added > 0 then
  count_keys(now, keys_added)
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
