-- Deletes many records, each if it is of the generation meant. Keys and elements: store/redis/keys.py.
--
-- KEYS[i]  the record of item i
-- ARGV[i]  the generation, the first 16 bytes of the header
-- Answers, one for each item, as in commit.lua: 1 deleted; 0 nothing stands there; a string: the header that stands
-- there; {"refused", text}.

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
