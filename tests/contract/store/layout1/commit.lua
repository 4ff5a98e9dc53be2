-- Compares and sets many records, each independently. Keys: store/redis/keys.py; elements: store/redis/layout1.py.
--
-- KEYS[i]  the record of item i
-- ARGV     for each item: "append", expected, header, ttl_ms, log
--                     or: "replace", expected, header, ttl_ms, log, checkpoint
--          expected is the header that the record must have, or "" if there must be no record. ttl_ms is "" if the key
--          has no TTL and needs none, and 0 to remove its TTL.
-- Returns one answer for each item:
--   1                    committed
--   0                    conflict: there is no record
--   a string             conflict: the header of the record
--   {"refused", text}    nothing of the item was written
--   {"unknown", text}    its first write was executed, and a later one failed
--
-- Redis checks memory and read-only mode only at a script's first write. The first write of every item is a single
-- command that Redis refuses if memory is full, so no item is left half done: a script's items are refused from the
-- first one on, or not at all.

local TTL_REFRESH_BELOW = 0.9

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

local function keep(key, ttl_ms)
  if ttl_ms == '0' then
    return redis.pcall('PERSIST', key)
  end
  local ttl = tonumber(ttl_ms)
  local left = redis.pcall('PTTL', key)
  if failed(left) then
    return left
  end
  return (left < TTL_REFRESH_BELOW * ttl or left > ttl) and redis.pcall('PEXPIRE', key, ttl_ms)
end

local function push(key, checkpoint, log)
  if checkpoint and #log > 0 then
    return redis.pcall('RPUSH', key, checkpoint, log)
  end
  return (checkpoint or #log > 0) and redis.pcall('RPUSH', key, checkpoint or log)
end

local function commit(key, expected, header, ttl_ms, log, checkpoint)
  local standing = redis.pcall('LINDEX', key, 0)
  if failed(standing) then
    return {'refused', standing.err}
  end
  if (standing or '') ~= expected then
    return standing or 0
  end
  local reply
  if not standing then
    if not checkpoint then
      return {'refused', 'a first commit without a checkpoint'}
    elseif #log > 0 then
      reply = redis.pcall('RPUSH', key, header, checkpoint, log)
    else
      reply = redis.pcall('RPUSH', key, header, checkpoint)
    end
    if failed(reply) then
      return {'refused', reply.err}
    end
  else
    reply = redis.pcall('LSET', key, 0, header)
    if failed(reply) then
      return {'refused', reply.err}
    end
    reply = checkpoint and redis.pcall('LTRIM', key, 0, 0)
    if not failed(reply) then
      reply = push(key, checkpoint, log)
    end
  end
  if ttl_ms ~= '' and not failed(reply) then
    reply = keep(key, ttl_ms)
  end
  return failed(reply) and {'unknown', reply.err} or 1
end

local answers = {}
local at = 1
for i, key in ipairs(KEYS) do
  local checkpoint = nil
  local after = at + 5
  if ARGV[at] == 'replace' then
    checkpoint = ARGV[after]
    after = after + 1
  end
  answers[i] = commit(key, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], checkpoint)
  at = after
end
return answers
