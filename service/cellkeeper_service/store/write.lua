-- Every write to records: each item compares, and then does what it says with at most one write command that counts.
-- Why it may be no more than that, and which of these may stand in one call: docs/adr/203.
--
-- KEYS[i]  the record of item i
-- ARGV[1]  "0" or "1", and 4 bytes: which run of Redis this is. "1": this connection has written nothing yet. What is
--          pushed last is then said again, so that the call's writes are a whole transaction, which ends one that a
--          crash has cut in the append-only file.
-- ARGV     for each item its words:
--          "append", fixed, moving, payload     one entry behind the header of those parts; payload: moving, chunk
--          "whole", fixed, moving, payload      the same; payload: fixed, moving, chunk
--          "replace", fixed, moving, base, checkpoint
--          "create", base, checkpoint           where nothing stands
--                   many of those four can be in one call
--          "trim"                               drops what is in front of the last element's checkpoint, if that is a
--                   base of this run; many of these can be in one call. Each of those below is a call of its own
--          "delete", generation
--          "expire"                             sets the TTL that the header asks for
--          "persist", fixed, moving             takes the TTL away, if this header stands there
--          "drop"                               deletes a record of the layout before
--          "repeat"                             says the last element again, twice; see ARGV[1]
-- Answers, one for each item:
--   1                    done
--   0                    conflict, nothing stands there
--   a string             conflict, the packed header that stands there
--   {"refused", text}    nothing of the item was written
--   {"damaged", text}    what stands there is no record
--
-- Memory and read-only checks are made by Redis at a script's first write, and never after it: the items of a call are
-- refused from the first one on, or not at all.

local first_write, run = byte(ARGV[1]) == 49, sub(ARGV[1], 2)
local pushed, pushed_to -- the last element, on a connection's first write

local NO_RECORD = {'damaged', 'its last element is none of a record'}

-- checkpoint: what is pushed in front of it, or nil.
local function push(key, element, checkpoint)
  local reply = checkpoint and call('RPUSH', key, checkpoint, element) or not checkpoint and call('RPUSH', key, element)
  if failed(reply) then
    return {'refused', reply.err}
  end
  if first_write then
    pushed, pushed_to = element, key
  end
  return 1
end

local function base_element(base)
  return 'B' .. run .. base
end

local function conflict(key, last)
  local fixed, moving = parts(key, last)
  return fixed and header_of(fixed, moving) or NO_RECORD
end

-- nil where the header of these parts stands there; else the answer. Then what the next entry needs: the distance of the
-- last element from its base, the base's mark, and whether the last element has a fixed part of its own.
local function compare(key, last, fixed, moving)
  local tag = tag_of(last)
  if tag == ENTRY then
    if find(last, moving, IN_ENTRY, true) == IN_ENTRY then
      local base, distance, mark = base_of(key, last)
      if base and find(base, fixed, IN_BASE, true) == IN_BASE then
        return nil, distance, mark, false
      end
    end
  elseif tag == BASE then
    local at = IN_BASE + FIXED
    if find(last, fixed, IN_BASE, true) == IN_BASE and find(last, moving, at, true) == at then
      return nil, 0, sub(moving, 5, 8), false
    end
  elseif
    tag == WHOLE
    and find(last, fixed, IN_ENTRY, true) == IN_ENTRY
    and find(last, moving, IN_ENTRY + FIXED, true) == IN_ENTRY + FIXED
  then
    local _, distance, mark = base_of(key, last)
    return nil, distance, mark, true -- without its base it can only be replaced
  end
  return conflict(key, last)
end

-- Whether a commit leaves the TTL as it is. One that changes it has a call of its own for that: docs/adr/203.
local function same_ttl(fixed, after)
  return sub(fixed, TTL_IN_FIXED + 1, TTL_IN_FIXED + 8) == sub(after, TTL_IN_FIXED + 1, TTL_IN_FIXED + 8)
end

local function append(key, last, kind, fixed, moving, payload)
  local answer, distance, mark, whole = compare(key, last, fixed, moving)
  if answer then
    return answer
  end
  if not distance then
    return NO_RECORD
  end
  distance = distance + 1
  if distance > 16777215 then
    return {'refused', 'the log has too many entries'}
  end
  local low = distance % 256
  local middle = (distance - low) / 256 % 256
  local link = string.char(low, middle, (distance - low - 256 * middle) / 65536)
  if kind == 'append' and not whole then
    answer = push(key, 'S' .. link .. mark .. run .. payload)
  else
    answer = push(key, 'W' .. link .. mark .. run .. (kind == 'append' and fixed or '') .. payload)
  end
  if answer == 1 and (kind == 'append' or same_ttl(fixed, payload)) then
    expire(key, fixed)
  end
  return answer
end

local function replace(key, last, fixed, moving, base, checkpoint)
  local answer = compare(key, last, fixed, moving)
  if answer then
    return answer
  end
  answer = push(key, base_element(base), checkpoint)
  if answer == 1 and same_ttl(fixed, base) then
    expire(key, fixed)
  end
  return answer
end

local one = {}

function one.delete(key, last, generation)
  local fixed, moving = parts(key, last)
  if fixed and sub(fixed, 1, 16) ~= generation then
    return header_of(fixed, moving)
  end
  local reply = call('UNLINK', key)
  return failed(reply) and {'refused', reply.err} or 1
end

function one.drop(key)
  return one.delete(key, '')
end

function one.expire(key, last)
  local fixed = parts(key, last)
  if not fixed then
    return NO_RECORD
  end
  local reply = expire(key, fixed)
  return failed(reply) and {'refused', reply.err} or 1
end

-- Twice, so that it is written also where the key has no TTL: an older push that comes back with one must not keep it.
function one.persist(key, last, fixed, moving)
  local answer = compare(key, last, fixed, moving)
  if not answer then
    call('PEXPIRE', key, '100000000000000')
    call('PERSIST', key)
  end
  return answer or 1
end

one['repeat'] = function(key, last)
  local tag = tag_of(last)
  local element = tag and again(last, tag, run) or last
  push(key, element)
  push(key, element)
  pushed = nil
  return 1
end

local function write(key, kind, a, b, c, d)
  local last = call('LINDEX', key, -1)
  if type(last) ~= 'string' then
    if last then
      return kind == 'delete' and one.delete(key, '', a) or {'damaged', last.err}
    elseif kind ~= 'create' then
      return 0
    end
    return b == '' and {'refused', 'a first commit without a checkpoint'} or push(key, base_element(a), b)
  elseif kind == 'append' or kind == 'whole' then
    return append(key, last, kind, a, b, c)
  elseif kind == 'replace' then
    return replace(key, last, a, b, c, d)
  elseif kind == 'create' then
    return conflict(key, last)
  end
  return one[kind](key, last, a, b)
end

local WORDS = {append = 4, whole = 4, replace = 5, create = 3, delete = 2, expire = 1, persist = 3, drop = 1}
WORDS['repeat'] = 1

local answers = {}
local at = 2
for i, key in ipairs(KEYS) do
  local kind = ARGV[at]
  answers[i] = write(key, kind, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
  at = at + WORDS[kind]
end
if pushed then
  call('RPUSH', pushed_to, again(pushed, byte(pushed, 1), run))
end
return answers
