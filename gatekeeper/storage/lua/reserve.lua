-- Reserve every enforced claim, or none.
--
-- KEYS: clock, hold, then the bucket or pool of each claim.
-- ARGV[1], doubles: expected time, how long the hold may be settled, then for each claim its kind
-- (1 in shadow mode, plus 2 for a pool, plus 4 for a bucket that yields what is left), burst, amount,
-- and whole, part, over (a pool: lease, 0, 0).
-- ARGV[2]: id of the hold.
-- Returns doubles: 1 admitted, 0 not, -1 when the hold is open already; now; then for each claim
-- level and remainder as they stood before.

local packed, claims = ARGV[1], #KEYS - 2
local expected, hold_us, position = struct.unpack('<dd', packed)
local now = tick(KEYS[1], expected)
local ends = redis.call('GET', KEYS[2])
if ends and tonumber(ends) > now then return struct.pack('<dd', -1, now) end

local kinds, amounts, rates, drained, answer = {}, {}, {}, {}, {1, now}
for i = 1, claims do
  local key, used, rest = KEYS[i + 2], 0, 0
  local kind, burst, amount = struct.unpack('<ddd', packed, position)
  local rate = string.sub(packed, position + 24, position + 47)
  position = position + 48
  local yields = kind >= 4
  if yields then kind = kind - 4 end
  if kind < 2 then
    used, rest, drained[i] = level(key, now)
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used = redis.call('ZCARD', key) * 1000000
  end
  if yields and used + amount > burst and amount < SATURATION then
    local left = burst - used
    if left >= 1000000 then amount = left - fmod(left, 1000000) end
  end
  if amount > 0 and used + amount > burst then
    if kind == 0 or kind == 2 then answer[1] = 0 end
    amount = 0  -- in shadow mode it is not charged
  end
  kinds[i], amounts[i], rates[i] = kind, amount, rate
  answer[2 * i + 1], answer[2 * i + 2] = used, rest
end

local admitted = answer[1] == 1
if admitted then
  redis.call('SET', KEYS[2], now + hold_us, 'PX', lifetime(hold_us / 1000))
end
for i = 1, claims do
  local key, amount = KEYS[i + 2], admitted and amounts[i] or 0
  if kinds[i] < 2 then
    if amount > 0 or (drained[i] and drained[i] ~= rates[i]) then
      keep(key, answer[2 * i + 1] + amount, answer[2 * i + 2], now, rates[i])
    end
  elseif amount > 0 then
    local ends = now + struct.unpack('<d', rates[i])
    redis.call('ZADD', key, ends, ARGV[2])
    -- the last lease to end may be another's, from before a reload that shortened them
    local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
    redis.call('PEXPIRE', key, lifetime((last[2] - now) / 1000))
  end
end
return struct.pack('<' .. string.rep('d', #answer), unpack(answer))
