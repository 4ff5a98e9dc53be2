-- Reads many records of either layout. Keys: redis_keys.py; elements: redis_layout.py, redis_layout1.py.
--
-- KEYS[i]      the record of item i
-- ARGV[i]      "1": refresh the TTL; "0": leave it
-- Answers, one for each item: the list's elements (none: nothing stands there), or a string: why it cannot be read.

local answers = {}
for i, key in ipairs(KEYS) do
  local record = redis.pcall('LRANGE', key, 0, -1)
  answers[i] = record.err or record
  local last = record[#record]
  if ARGV[i] == '1' and last and string.sub(key, 1, 3) ~= 'ck1' then
    local fixed = parts(key, last)
    if fixed then
      expire(key, fixed) -- one that fails (on a replica, say) leaves the record readable
    end
  end
end
return answers
