-- Reads the packed header of one record. KEYS[1]: the record. Returns the header, false if there is no record, a string
-- of another length if the key holds no valid record, or "failed: " and why the key could not be read.

local last = call('LINDEX', KEYS[1], '-1')
if not last then
  return false
elseif failed(last) then
  return 'failed: ' .. last.err
end
local fixed, moving = parts(KEYS[1], last)
return fixed and header_of(fixed, moving) or ''
