-- What the scripts know of a record's list; it stands in front of each of them. Elements: redis_layout.py, whose
-- read_elements finds the base as base_of does.

local TTL_REFRESH_BELOW = 0.9
local BASE, ENTRY, WHOLE = 66, 83, 87
local FIXED, MOVING = 114, 18
local TTL_IN_FIXED = 46

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

-- The base of an entry, and its index. at(i): the element at the negative index i, false beyond the first.
local function base_of(at, last)
  local mark = string.sub(last, 5, 8)
  local i = -1 - (string.byte(last, 2) + 256 * string.byte(last, 3) + 65536 * string.byte(last, 4))
  while true do
    local element = at(i)
    if not element then
      return nil
    end
    if string.byte(element, 1) == BASE and string.find(element, mark, FIXED + 6, true) == FIXED + 6 then
      return element, i
    end
    i = i - 1
  end
end

local function parts_of(at, last)
  local tag = string.byte(last, 1)
  if tag == ENTRY then
    local base = base_of(at, last)
    return base and string.sub(base, 2, 1 + FIXED), string.sub(last, 9, 8 + MOVING)
  end
  local start = tag == BASE and 2 or tag == WHOLE and 9
  if start then
    return string.sub(last, start, start + FIXED - 1), string.sub(last, start + FIXED, start + FIXED + MOVING - 1)
  end
end

-- The two parts of the header that the list ends with; nil where it is none.
local function parts(at, last)
  local fixed, moving = parts_of(at, last)
  if fixed and #fixed == FIXED and #moving == MOVING then
    return fixed, moving
  end
end

local function header_of(fixed, moving)
  return string.sub(fixed, 1, 16) .. string.sub(moving, 1, 4) .. string.sub(fixed, 17, 20) .. string.sub(moving, 5)
    .. string.sub(fixed, 21)
end

-- The key gets the TTL that its header asks for, where less than nine tenths of it are left, or more than all.
local function expire(key, fixed)
  local ttl = math.min(struct.unpack('<I8', fixed, TTL_IN_FIXED + 1), 1e14)
  if ttl > 0 then
    local left = redis.pcall('PTTL', key)
    if failed(left) then
      return left
    end
    return (left < TTL_REFRESH_BELOW * ttl or left > ttl) and redis.pcall('PEXPIRE', key, string.format('%.0f', ttl))
  end
end
