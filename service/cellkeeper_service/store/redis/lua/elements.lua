-- What all scripts know about a record's list; this file is prepended to each of them. store/redis/layout.py describes
-- the elements; its read_elements finds the base as base_of does.

local TTL_REFRESH_BELOW = 0.9
local BASE, ENTRY, WHOLE = 66, 83, 87
local FIXED, MOVING, RUN = 114, 22, 4
-- The 1-based offsets of the run, by element, and of what follows it: the fixed part, or the moving part of an ENTRY.
local RUN_AT = {[BASE] = 2, [ENTRY] = 9, [WHOLE] = 9}
local IN_BASE, IN_ENTRY = 2 + RUN, 9 + RUN
local TTL_IN_FIXED = 46
local NEVER = '\0\0\0\0\0\0\0\0'

local call, byte, find, sub = redis.pcall, string.byte, string.find, string.sub

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

-- Returns the mark that identifies a base, computed from its moving part.
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

-- Returns the element's tag; nil if it is too short, or not one that holds a header.
local function tag_of(last)
  local tag = byte(last, 1)
  return #last >= (LEAST[tag] or math.huge) and tag or nil
end

-- Returns the base of an entry, its distance from the end in elements, and its mark; nil if there is none.
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

-- Returns the fixed and the moving part of the header that the list ends with; nil first if there is none.
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

-- Returns the TTL that a header asks for, in ms, bounded to what Redis accepts; nil if it asks for none.
local function ttl_of(fixed)
  local ttl = sub(fixed, TTL_IN_FIXED + 1, TTL_IN_FIXED + 8)
  return ttl ~= NEVER and math.min(struct.unpack('<I8', ttl), 1e14) or nil
end

-- Sets the key's TTL again if less than nine tenths of it, or more than all of it, is left.
local function refresh(key, ttl)
  local left = call('PTTL', key)
  if failed(left) then
    return left
  end
  return (left < TTL_REFRESH_BELOW * ttl or left > ttl) and call('PEXPIRE', key, string.format('%.0f', ttl))
end

-- Pushes an entry that repeats the header of the last element, marked with this run. tag: the tag of `last`.
local function say_again(key, last, tag, run)
  if tag == BASE then
    local moving = sub(last, IN_BASE + FIXED)
    return call('RPUSH', key, 'S\1\0\0' .. mark_of(moving) .. run .. moving)
  end
  return call('RPUSH', key, sub(last, 1, 8) .. run .. sub(last, IN_ENTRY))
end
