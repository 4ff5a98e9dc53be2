-- Reads many records. Keys: store/redis/keys.py; elements: store/redis/layout.py.
--
-- KEYS[i]      the record of item i
-- ARGV[1], [2] as in write.lua
-- ARGV[2 + i]  "touch": refresh the TTL; "leave": do not; followed by " whole": read the record whatever its size
-- Returns one answer for each item: the list's elements (none: there is no record); a string: why it cannot be read;
-- 1: it is too large to be read with others; 2: the others have used up what a call may read.

local LOAD_BYTES = 4194304 -- LOAD_BYTES in domain/store.py
local ELEMENT_BYTES = 64 -- counted for each element besides its own bytes: Lua's overhead takes about as long
local room = LOAD_BYTES -- bytes that may still be returned
local patience = 8 * LOAD_BYTES -- bytes that may still be read, including records that prove too large

-- Reads the elements from the end in pieces, so that a record too large is read only as far as it takes to find out.
local function read(key, whole)
  if whole then
    return redis.pcall('LRANGE', key, 0, -1)
  end
  local length = redis.pcall('LLEN', key)
  if failed(length) then
    return length
  end
  local pieces, bytes = {}, 0
  local stop = length
  while stop > 0 do
    local start = math.max(0, stop - 64)
    local piece = redis.pcall('LRANGE', key, start, stop - 1)
    for _, element in ipairs(piece) do
      bytes = bytes + #element + ELEMENT_BYTES
    end
    if bytes > LOAD_BYTES then
      patience = patience - bytes
      return nil
    end
    pieces[#pieces + 1] = piece
    stop = start
  end
  room, patience = room - bytes, patience - bytes
  if #pieces == 1 then
    return pieces[1]
  end
  local record = {}
  for i = #pieces, 1, -1 do
    for _, element in ipairs(pieces[i]) do
      record[#record + 1] = element
    end
  end
  return record
end

local first_write, run = byte(ARGV[1]) == 49, sub(ARGV[1], 2)

-- Repeats the last element of a record that was not written in this run, before anybody sees the record: the element
-- may be one that a crash brought back, and the append-only file may end with another that contradicts it.
-- docs/adr/203. Returns an error, or false or nothing.
local function confirm(key, last, tag)
  if find(last, run, RUN_AT[tag], true) ~= RUN_AT[tag] then
    local reply = say_again(key, last, tag, run)
    if first_write and not failed(reply) then
      reply = say_again(key, last, tag, run)
    end
    return failed(reply) and reply
  end
end

local answers = {}
for i, key in ipairs(KEYS) do
  local how = ARGV[2] ~= '' and ARGV[2] or ARGV[2 + i]
  local whole = sub(how, -6) == ' whole'
  local unread = not whole and (room <= 0 or patience <= 0)
  local record = not unread and read(key, whole)
  if not record then
    answers[i] = unread and 2 or 1
  else
    answers[i] = record.err or record
    local last = record[#record]
    local tag = last and tag_of(last)
    local unconfirmed = tag and confirm(key, last, tag)
    if unconfirmed then
      answers[i] = unconfirmed.err
    elseif tag and sub(how, 1, 5) == 'touch' then
      local fixed = parts(key, last)
      local ttl = fixed and ttl_of(fixed)
      local left = ttl and call('PTTL', key)
      if type(left) == 'number' and left >= 0 then -- a key without a TTL may be on its way to being kept for ever
        refresh(key, ttl) -- a failure leaves the record readable
      end
    end
  end
end
return answers
