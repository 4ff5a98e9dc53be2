-- The trim of write.lua, in front of all else: nothing of what follows is made for it.

if ARGV[2] == 'trim' then
  local last = redis.pcall('LINDEX', KEYS[1], -1)
  local reply = type(last) == 'string' and string.find(last, ARGV[3], 1, true) == 1 and redis.pcall('LTRIM', KEYS[1], -2, -1)
  return {type(reply) == 'table' and reply.err and {'refused', reply.err} or 1}
end

