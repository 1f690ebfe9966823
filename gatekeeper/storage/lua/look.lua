-- Tell where buckets and pools stand. Writes nothing.
--
-- KEYS: clock, then the bucket or pool of each claim.
-- ARGV[1], doubles: expected time, then for each claim its kind (2 and above: a pool).
-- Returns doubles: for each claim level and remainder.

local kinds = {struct.unpack('<' .. string.rep('d', #KEYS), ARGV[1])}
local now = clock(KEYS[1], kinds[1])
local answer = {}
for i = 2, #KEYS do
  local used, rest = 0, 0
  if kinds[i] < 2 then
    used, rest = level(KEYS[i], now)
  else
    used = redis.call('ZCOUNT', KEYS[i], string.format('(%.0f', now), '+inf') * 1000000
  end
  answer[#answer + 1], answer[#answer + 2] = used, rest
end
return struct.pack('<' .. string.rep('d', #answer), unpack(answer))
