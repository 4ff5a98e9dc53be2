-- Every write to records: each item compares, then does what it says with at most one write command that counts.
-- docs/adr/203 says why it may not be more, and which items may share a call.
--
-- KEYS[i]  the record of item i
-- ARGV[1]  "0" or "1", then 4 bytes that identify this run of Redis. "1": this connection has written nothing yet. The
--          last element pushed is then repeated, so that the call's writes are a complete transaction, which ends any
--          that a crash cut short in the append-only file.
-- ARGV[2]  the first word of every item, if it is the same; it is left out below then. Otherwise empty
-- ARGV     the words of each item:
--          "append", moving, moving, inputs     one entry after the header that has the first of these parts
--          "whole", moving, fixed moving, inputs
--          "replace", moving, base, inputs, checkpoint
--          "create", base, inputs, checkpoint   if there is no record
--                   A call may carry many of these four. All except "create" may be preceded by "ttl", ttl, if the TTL
--                   does not change and is to be refreshed
--          "trim"                               drops everything before the last element's checkpoint, if that element
--                   is a base of this run. A call may carry many of these. Each of those below is a call of its own
--          "delete", generation
--          "expire"                             sets the TTL that the header asks for
--          "persist", moving                    removes the TTL, if the record has this header. Sent before a commit
--                   that changes the TTL, and again after one that removes it, since others may have set it in between
--          "repeat"                             repeats the last element, twice; see ARGV[1]
-- Returns one answer for each item:
--   1                    done
--   0                    conflict: there is no record
--   a string             conflict: the packed header of the record
--   {"refused", text}    nothing of the item was written
--   {"damaged", text}    what is stored is not a record
--
-- Redis checks for free memory and read-only mode at a script's first write, and never after it, so it refuses all the
-- writes of a call or none.

local type, char = type, string.char
local first_write, run = byte(ARGV[1]) == 49, sub(ARGV[1], 2)
local pushed, pushed_to -- the last element pushed and its key, on a connection's first write

local NO_RECORD = {'damaged', 'its last element is none of a record'}

-- Pushes inputs and element, after the checkpoint if it is not nil. Returns the item's answer.
local function push(key, inputs, element, checkpoint)
  local reply = checkpoint and call('RPUSH', key, checkpoint, inputs, element)
    or not checkpoint and call('RPUSH', key, inputs, element)
  if failed(reply) then
    return {'refused', reply.err}
  end
  if first_write then
    pushed, pushed_to = element, key
  end
  return 1
end

local function conflict(key, last)
  local fixed, moving = parts(key, last)
  return fixed and header_of(fixed, moving) or NO_RECORD
end

-- Returns nil and the tag of the last element if the record's header has this moving part, otherwise the item's answer.
local function compare(key, last, moving)
  local tag = tag_of(last)
  local at = tag == ENTRY and IN_ENTRY or tag == BASE and IN_BASE + FIXED or tag == WHOLE and IN_ENTRY + FIXED
  if at and find(last, moving, at, true) == at then
    return nil, tag
  end
  return conflict(key, last)
end

-- after: what follows the run in the new entry.
local function append(key, last, kind, moving, after, inputs)
  local answer, tag = compare(key, last, moving)
  if answer then
    return answer
  end
  local distance, mark = 0, nil
  if tag == BASE then
    mark = mark_of(moving)
  else
    local low, middle, high = byte(last, 2, 4)
    distance, mark = low + 256 * middle + 65536 * high, sub(last, 5, 8)
  end
  distance = distance + 2
  if distance > 16777215 then
    return {'refused', 'the log has too many entries'}
  end
  local low = distance % 256
  local middle = (distance - low) / 256 % 256
  local link = char(low, middle, (distance - low - 256 * middle) / 65536)
  if kind == 'append' and tag ~= WHOLE then
    return push(key, inputs, 'S' .. link .. mark .. run .. after)
  end
  local fixed = kind == 'append' and sub(last, IN_ENTRY, IN_ENTRY - 1 + FIXED) or ''
  return push(key, inputs, 'W' .. link .. mark .. run .. fixed .. after)
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

function one.expire(key, last)
  local fixed = parts(key, last)
  if not fixed then
    return NO_RECORD
  end
  local ttl = ttl_of(fixed)
  local reply = ttl and refresh(key, ttl)
  return failed(reply) and {'refused', reply.err} or 1
end

-- Sets a TTL before removing it, so that the removal is written to the append-only file even if the key has no TTL: an
-- old write that a crash brings back may set one, which must not stay.
function one.persist(key, last, moving)
  local answer = compare(key, last, moving)
  if not answer then
    local fixed = parts(key, last)
    call('PEXPIRE', key, string.format('%.0f', fixed and ttl_of(fixed) or 1e14))
    call('PERSIST', key)
  end
  return answer or 1
end

one['repeat'] = function(key, last)
  local tag = tag_of(last)
  for _ = 1, 2 do
    if tag then
      say_again(key, last, tag, run)
    else
      call('RPUSH', key, last)
    end
  end
  return 1
end

local function write(key, kind, a, b, c, d)
  local last = call('LINDEX', key, '-1') -- not a number: Redis prints it with the decimals of a double
  if type(last) ~= 'string' then
    if last then
      return kind == 'delete' and one.delete(key, '', a) or {'damaged', last.err}
    elseif kind ~= 'create' then
      return 0
    end
    return c == '' and {'refused', 'a first commit without a checkpoint'} or push(key, b, 'B' .. run .. a, c)
  elseif kind == 'append' or kind == 'whole' then
    return append(key, last, kind, a, b, c)
  elseif kind == 'replace' then
    return compare(key, last, a) or push(key, c, 'B' .. run .. b, d)
  elseif kind == 'create' then
    return conflict(key, last)
  end
  return one[kind](key, last, a)
end

local WORDS = {append = 3, whole = 3, replace = 4, create = 3, delete = 1, expire = 0, persist = 1}
WORDS['repeat'] = 0

local answers, all = {}, ARGV[2]
local at = 3
for i, key in ipairs(KEYS) do
  local kind, ttl = all, nil
  if kind == '' then
    kind, at = ARGV[at], at + 1
  end
  if kind == 'ttl' then
    ttl, kind = ARGV[at], ARGV[at + 1]
    at = at + 2
  end
  local answer = write(key, kind, ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  if ttl and answer == 1 then
    refresh(key, math.min(struct.unpack('<I8', ttl), 1e14))
  end
  answers[i] = answer
  at = at + WORDS[kind]
end
if pushed then
  say_again(pushed_to, pushed, byte(pushed, 1), run)
end
return answers
