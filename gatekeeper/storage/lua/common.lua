-- Gatekeeper limits, scripts 2, on keys of layout 1. Comes before each of the other scripts.
--
-- The arithmetic is that of gatekeeper/policy/limits.py, to the unit: it says why no number here
-- leaves the integers that a double holds exactly. Times are microseconds, levels micro-units.
--
-- A bucket is a hash whose field 's' packs six doubles: level, remainder, when both were so, and the
-- rate (whole, part, over) at which it drains from then on: that of whoever asked last. It is gone
-- once it has drained. A pool is a sorted set of holds by the end of their leases; a hold is a string,
-- the time it ends. Fields that another version adds are left alone.

local fmod = math.fmod
local SATURATION = 4500000000000000
local LEAP = 5000000             -- a clock that is further ahead than the caller expects was set
local LONGEST_MS = 315360000000  -- ten years: no key lives longer

-- The time of the limits: the server's, but it never steps. After a failover the clock may be
-- behind, and somebody may set it: then 'shift' takes the step out, for all callers. 'expected' is
-- where the caller's monotonic clock puts this time, 0 when it does not know. Returns the time, and
-- the shift if it has to be another. Writes nothing.
local function clock(key, expected)
  local time = redis.call('TIME')
  local kept = redis.call('HMGET', key, 'at', 'shift')
  local at, shift = tonumber(kept[1] or 0), tonumber(kept[2] or 0)
  local now = time[1] * 1000000 + time[2] + shift
  if now < at or (expected > 0 and now - expected > LEAP) then
    local steady = math.max(at, expected)
    return steady, shift + steady - now
  end
  return now
end

local function tick(key, expected)
  local now, shift = clock(key, expected)
  if shift then
    redis.call('HSET', key, 'at', now, 'shift', shift)
  else
    redis.call('HSET', key, 'at', now)
  end
  return now
end

local function lifetime(ms)
  return string.format('%.0f', math.min(math.ceil(ms) + 1000, LONGEST_MS))
end

-- Return level and remainder of a bucket now, and the rate it drained at until now, packed.
local function level(key, now)
  local kept = redis.call('HGET', key, 's')
  if not kept then return 0, 0 end
  local used, rest, at, whole, part, over = struct.unpack('<dddddd', kept)
  local elapsed, rate = now - at, string.sub(kept, 25)
  if elapsed <= 0 then return used, rest, rate end
  local odd = fmod(elapsed, over)
  rest = rest + odd * part
  local carried = fmod(rest, over)
  used = used - elapsed * whole - (elapsed - odd) / over * part - (rest - carried) / over
  if used > 0 then return used, carried, rate end
  return 0, 0, rate
end

-- Write a bucket, to live until it has drained at its new rate.
local function keep(key, used, rest, now, rate)
  if used == 0 then return redis.call('DEL', key) end
  local whole, part, over = struct.unpack('<ddd', rate)
  redis.call('HSET', key, 's', struct.pack('<ddd', used, rest, now) .. rate)
  redis.call('PEXPIRE', key, lifetime(used / (whole + part / over) / 1000))
end
