-- Deletes many records, each if it has the given generation. Keys: store/redis/keys.py; elements:
-- store/redis/layout1.py.
--
-- KEYS[i]  the record of item i
-- ARGV[i]  the generation, the first 16 bytes of the header
-- Returns one answer for each item, as in commit.lua: 1: deleted; 0: there is no record; a string: the header of the
-- record; {"refused", text}.

local answers = {}
for i, key in ipairs(KEYS) do
  local standing = redis.pcall('LINDEX', key, 0)
  if type(standing) == 'table' then
    answers[i] = {'refused', standing.err}
  elseif not standing then
    answers[i] = 0
  elseif string.sub(standing, 1, 16) ~= ARGV[i] then
    answers[i] = standing
  else
    local reply = redis.pcall('UNLINK', key)
    answers[i] = type(reply) == 'table' and {'refused', reply.err} or 1
  end
end
return answers
