-- Returns those of the commands ARGV, each with its words separated by spaces, that the user has no right to run, and
-- those that this server does not know. Runs none of them, so it has no KEYS and any server of a cluster can answer.

local denied, unknown = {}, {}
for _, command in ipairs(redis.acl_check_cmd and ARGV or {}) do
  local words = {}
  for word in string.gmatch(command, '%S+') do
    words[#words + 1] = word
  end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if not known then
    unknown[#unknown + 1] = command
  elseif not allowed then
    denied[#denied + 1] = command
  end
end
return {denied, unknown}
