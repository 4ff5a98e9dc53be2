-- Returns those of the commands ARGV, each with its words separated by spaces, that the user has no right to run. Runs
-- none of them, so it has no KEYS and any server of a cluster can answer.

local denied = {}
for _, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do
    words[#words + 1] = word
  end
  -- Fails for a command that this server does not know, and where there is no such function.
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and not allowed then
    denied[#denied + 1] = command
  end
end
return denied
