-- Reads many records. Keys: store/redis/keys.py; elements: store/redis/layout1.py.
--
-- KEYS[i]      the record of item i
-- ARGV[1]      the offset of ttl_ms in the header
-- ARGV[i + 1]  "1": refresh the TTL; "0": leave it
-- Returns one answer for each item: the list's elements (none: there is no record); or a string: why it cannot be read.

local TTL_REFRESH_BELOW = 0.9

-- A failed refresh, such as on a replica, leaves the record readable, so its error is ignored.
local function touch(key, header, offset)
  if #header < offset + 8 then
    return
  end
  local ttl = struct.unpack('<I8', header, offset + 1)
  if ttl > 0 then
    ttl = math.min(ttl, 1e14)
    local left = redis.pcall('PTTL', key)
    if type(left) == 'number' and left < TTL_REFRESH_BELOW * ttl then
      redis.pcall('PEXPIRE', key, string.format('%.0f', ttl))
    end
  end
end

local offset = tonumber(ARGV[1])
local answers = {}
for i, key in ipairs(KEYS) do
  local record = redis.pcall('LRANGE', key, 0, -1)
  answers[i] = record.err or record
  if ARGV[i + 1] == '1' and record[1] then
    touch(key, record[1], offset)
  end
end
return answers
