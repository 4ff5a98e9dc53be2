-- What the scripts know of a record's list; it stands in front of each of them. Elements: store/redis/layout.py, whose
-- read_elements finds the base as base_of does.

local TTL_REFRESH_BELOW = 0.9
local BASE, ENTRY, WHOLE = 66, 83, 87
local FIXED, MOVING, RUN = 114, 22, 4
-- Where an element has its run, its fixed part, and its moving part (of an entry, and of the other two).
local RUN_AT = {[BASE] = 2, [ENTRY] = 9, [WHOLE] = 9}
local IN_BASE, IN_ENTRY = 2 + RUN, 9 + RUN
local TTL_IN_FIXED = 46
local NEVER = '\0\0\0\0\0\0\0\0'

local call, byte, find, sub = redis.pcall, string.byte, string.find, string.sub

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

-- What names a base, by its moving part.
local function mark_of(moving)
  local a, b, c, d = byte(moving, 1, 4)
  local e, f, g, h = byte(moving, 9, 12)
  return string.char(bit.bxor(a, e), bit.bxor(b, f), bit.bxor(c, g), bit.bxor(d, h))
end

local LEAST = { -- bytes
  [BASE] = IN_BASE - 1 + FIXED + MOVING,
  [ENTRY] = IN_ENTRY - 1 + MOVING,
  [WHOLE] = IN_ENTRY - 1 + FIXED + MOVING,
}

-- What kind of element this is; nil where it is too short to be one, or none that a header ends with.
local function tag_of(last)
  local tag = byte(last, 1)
  return #last >= (LEAST[tag] or math.huge) and tag or nil
end

-- The base of an entry, its distance from the end in elements, and the mark that names it.
local function base_of(key, last)
  local low, middle, high = byte(last, 2, 4)
  local mark, distance = sub(last, 5, 8), low + 256 * middle + 65536 * high
  while true do
    local element = call('LINDEX', key, -1 - distance)
    if not element then
      return nil
    end
    if tag_of(element) == BASE and mark_of(sub(element, IN_BASE + FIXED)) == mark then
      return element, distance, mark
    end
    distance = distance + 1
  end
end

-- The two parts of the header that the list ends with; nil where it is none.
local function parts(key, last)
  local tag = tag_of(last)
  if tag == ENTRY then
    local base = base_of(key, last)
    return base and sub(base, IN_BASE, IN_BASE - 1 + FIXED), sub(last, IN_ENTRY, IN_ENTRY - 1 + MOVING)
  end
  local start = tag == BASE and IN_BASE or tag == WHOLE and IN_ENTRY
  if start then
    return sub(last, start, start + FIXED - 1), sub(last, start + FIXED, start + FIXED + MOVING - 1)
  end
end

local function header_of(fixed, moving)
  return sub(fixed, 1, 16) .. sub(moving, 5, 8) .. sub(fixed, 17, 20) .. sub(moving, 9) .. sub(fixed, 21)
end

-- The TTL that a header asks for, as Redis takes it; nil where it asks for none.
local function ttl_of(fixed)
  local ttl = sub(fixed, TTL_IN_FIXED + 1, TTL_IN_FIXED + 8)
  return ttl ~= NEVER and math.min(struct.unpack('<I8', ttl), 1e14) or nil
end

-- The key gets its TTL anew, where less than nine tenths of it are left, or more than all.
local function refresh(key, ttl)
  local left = call('PTTL', key)
  if failed(left) then
    return left
  end
  return (left < TTL_REFRESH_BELOW * ttl or left > ttl) and call('PEXPIRE', key, string.format('%.0f', ttl))
end

-- Pushes an entry that says what the last element says, and that it was said in this run. tag: of `last`.
local function say_again(key, last, tag, run)
  if tag == BASE then
    local moving = sub(last, IN_BASE + FIXED)
    return call('RPUSH', key, 'S\1\0\0' .. mark_of(moving) .. run .. moving)
  end
  return call('RPUSH', key, sub(last, 1, 8) .. run .. sub(last, IN_ENTRY))
end
