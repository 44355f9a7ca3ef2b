-- Deletes the block and the failed attempts of an address.
--
-- KEYS  [1] hash of the address (b blocked until, ms)
-- ARGV  [1] read by now.lua
-- Returns the ms for which it was still blocked, or 0
local blocked_until = tonumber(redis.call('HGET', KEYS[1], 'b') or 0)
redis.call('DEL', KEYS[1])
return math.max(0, blocked_until - now)
