-- Settle or cancel a hold: once, and a hold that has ended stays charged. Slots are freed always.
--
-- KEYS: clock, hold, then the bucket or pool of each claim to correct.
-- ARGV[1], doubles: expected time, then for each claim its kind (2 and above: a pool), what to add
-- to the level, and whole, part, over.
-- ARGV[2]: id of the hold.
-- Returns doubles: 1 settled, 0 not; now.

local packed = ARGV[1]
local expected, position = struct.unpack('<d', packed)
local now = tick(KEYS[1], expected)
local ends = redis.call('GET', KEYS[2])
local open = ends and tonumber(ends) > now
for i = 3, #KEYS do
  local kind, delta = struct.unpack('<dd', packed, position)
  local rate = string.sub(packed, position + 16, position + 39)
  position = position + 40
  if kind >= 2 then
    redis.call('ZREM', KEYS[i], ARGV[2])
  elseif open then
    local used, rest = level(KEYS[i], now)
    used = math.min(math.max(used + delta, 0), SATURATION)
    keep(KEYS[i], used, rest, now, rate)
  end
end
if ends then redis.call('DEL', KEYS[2]) end
return struct.pack('<dd', open and 1 or 0, now)
