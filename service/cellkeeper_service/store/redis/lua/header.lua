-- The packed header of one record. KEYS[1]: the record. Answers it, or false where there is none, or a string of
-- another length where that is no record, or "failed: " and why it could not be read.

local last = call('LINDEX', KEYS[1], -1)
if not last then
  return false
elseif failed(last) then
  return 'failed: ' .. last.err
end
local fixed, moving = parts(KEYS[1], last)
return fixed and header_of(fixed, moving) or ''
