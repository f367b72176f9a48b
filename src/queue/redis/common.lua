-- common.lua - in front of every script: the keys of one partition, and what several scripts do.
--
-- KEYS[1] is PREFIX:{N}; every key of the partition starts with it, so that all of them have one hash slot. Ids are
-- the 16 bytes of a UUIDv7, which sort by time.
--
--   :msgs    hash    id -> record, of every message, dead letters too
--   :all     zset    ids of what is queued or leased, in order (score 0)
--   :dead    zset    ids of dead letters, in order (score 0)
--   :c:NAME  list    ids of a client's messages that wait for their first attempt
--   :ring    list    the clients that have such a list, the next one to be served first
--   :heads   zset    the same clients by the time of the first message in their list
--   :retry   zset    id .. client by the moment it is due: what waits for another attempt
--   :tried   hash    id -> u32 attempts, u64 due, history (row.c), of what was tried
--   :leases  zset    ids by the moment the lease runs out
--   :held    hash    id -> token (8 bytes), lane ('f' or 'r'), u8 length and client, worker
--   :state   hash    floor: the highest id ever; the pauses; in partition 0 partitions: how many there are; keys: how
--                    many are remembered; keys_step: when that was last gone over
--   :keys    hash    ten minutes -> how many idempotency keys of theirs are remembered; :state has the sum
--   :idem:H  string  the first answer to the request with key hash H: u64 time, payload hash, answer, u64 position
local P = KEYS[1]
local MSGS, ALL, DEAD, RING, HEADS = P .. ':msgs', P .. ':all', P .. ':dead', P .. ':ring', P .. ':heads'
local RETRY, TRIED, LEASES, HELD, STATE = P .. ':retry', P .. ':tried', P .. ':leases', P .. ':held', P .. ':state'
local KEYS_BY_STEP = P .. ':keys'
local call = redis.call

-- Milliseconds: the server's clock, which all processes share, unless the caller gives its own.
local function clock(given)
  if given ~= '' then
    return tonumber(given)
  end
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Lua's stack takes some thousand values.
local CHUNK = 1000

local function bulk(command, key, values)
  for i = 1, #values, CHUNK do
    call(command, key, unpack(values, i, math.min(i + CHUNK - 1, #values)))
  end
end

-- What `command` answers for each of the values, in one table.
local function lookup(command, key, values)
  local found = {}
  for i = 1, #values, CHUNK do
    for j, v in ipairs(call(command, key, unpack(values, i, math.min(i + CHUNK - 1, #values)))) do
      found[i + j - 1] = v
    end
  end
  return found
end

-- By bytes: Lua's own comparison of strings depends on the server's locale.
local function less(a, b)
  for i = 1, math.min(#a, #b) do
    if a:byte(i) ~= b:byte(i) then
      return a:byte(i) < b:byte(i)
    end
  end
  return #a < #b
end

local function time_of(id)
  return struct.unpack('>I6', id)
end

-- The client's list has got or lost messages at its front.
local function head_changed(client, listed)
  local head = call('LINDEX', P .. ':c:' .. client, 0)
  if head then
    call('ZADD', HEADS, time_of(head), client)
    if not listed then
      call('RPUSH', RING, client)
    end
  else
    call('ZREM', HEADS, client)
  end
end

-- At the end ('RPUSH') or the front ('LPUSH') of the client's list.
local function enqueue(push, client, ids)
  local key = P .. ':c:' .. client
  local listed = call('EXISTS', key) == 1
  bulk(push, key, ids)
  if push == 'LPUSH' or not listed then
    head_changed(client, listed)
  end
end

local function hold_of(value)
  local client, at = struct.unpack('Bc0', value, 10)
  return {token = value:sub(1, 8), lane = value:sub(9, 9), client = client, worker = value:sub(at)}
end

local HISTORY_ATTEMPTS = 32

-- The history without its oldest attempt, when it is full.
local function with_room(history)
  local at, second, count = 1, 1, 0
  while at <= #history do
    at = select(4, struct.unpack('>I8Bc0I2c0', history, at))
    count = count + 1
    if count == 1 then
      second = at
    end
  end
  return count < HISTORY_ATTEMPTS and history or history:sub(second)
end

-- One more attempt; it waits until `due` then, or is dead without one.
local function attempt(id, hold, reason, now, due)
  local attempts, history = 0, ''
  local tried = call('HGET', TRIED, id)
  if tried then
    attempts, history = struct.unpack('>I4', tried), with_room(tried:sub(13))
  end
  history = history .. struct.pack('>I8Bc0I2c0', now, #hold.worker, hold.worker, #reason, reason)
  call('HSET', TRIED, id, struct.pack('>I4I8', attempts + 1, due or 0) .. history)
  if due then
    call('ZADD', RETRY, due, id .. hold.client)
  else
    call('ZREM', ALL, id)
    call('ZADD', DEAD, 0, id)
  end
end

-- Redis forgets a key by itself, a minute late; how many there are is known in steps of ten minutes.
local KEY_LATE_MS, STEP_MS = 60000, 600000

local function step_of(now)
  return string.format('%d', math.floor(now / STEP_MS))
end

local function count_keys(now, added)
  call('HINCRBY', KEYS_BY_STEP, step_of(now), added)
  call('HINCRBY', STATE, 'keys', added)
end

-- Counts out those whose time is over, once in a step.
local function forget_keys(now, keep)
  if call('HGET', STATE, 'keys_step') == step_of(now) then
    return
  end
  local steps, over, left = call('HGETALL', KEYS_BY_STEP), {}, 0
  for i = 1, #steps, 2 do
    if (steps[i] + 1) * STEP_MS + keep + KEY_LATE_MS <= now then
      over[#over + 1] = steps[i]
    else
      left = left + steps[i + 1]
    end
  end
  bulk('HDEL', KEYS_BY_STEP, over)
  call('HSET', STATE, 'keys', left, 'keys_step', step_of(now))
end

-- Where it was before it was leased; call in reverse order of the lease.
local function give_back(id, hold)
  if hold.lane == 'f' then
    enqueue('LPUSH', hold.client, {id})
  else
    local tried = call('HGET', TRIED, id)
    call('ZADD', RETRY, tried and struct.unpack('>I8', tried, 5) or 0, id .. hold.client)
  end
end
