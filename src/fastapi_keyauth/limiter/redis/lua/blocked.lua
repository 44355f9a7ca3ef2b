-- Checks whether an address is blocked: the first half of take.lua, for a cluster, where the key is in another slot.
--
-- KEYS  [1] hash of the address (b blocked until, ms)
-- ARGV  [1] read by now.lua   [2] longest block in ms
-- Returns the ms for which it is still blocked, or 0
local left, longest = tonumber(redis.call('HGET', KEYS[1], 'b') or 0) - now, tonumber(ARGV[2])
-- A clock that was ahead for a moment must not block for longer than the policy says.
if left > longest then
  left = longest
  redis.call('HSET', KEYS[1], 'b', now + left)
  redis.call('PEXPIRE', KEYS[1], left)
end
return math.max(0, left)
