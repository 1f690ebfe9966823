-- Say that a gate is alive, and count those that are. Writes, so that it shows whether writes work.
--
-- KEYS: nodes, a sorted set of ids by the time they were seen last. ARGV: id, how long it counts.
-- Returns the number of gates.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[2] / 1000))
return redis.call('ZCARD', KEYS[1])
