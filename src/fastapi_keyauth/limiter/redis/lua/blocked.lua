-- Tells whether an address is blocked: the first half of take.lua, for a cluster, where the key lies elsewhere.
--
-- KEYS  [1] hash of the address (b blocked until, ms)
-- ARGV  [1] read by now.lua
-- Gives the ms for which it is still blocked, or 0
return math.max(0, tonumber(redis.call('HGET', KEYS[1], 'b') or 0) - now)
