-- Tells whether an address is blocked: the first half of take.lua, for a cluster, where the key lies elsewhere.
--
-- KEYS  [1] hash of the address (b blocked until, ms)
-- ARGV  [1] now in ms since 1970, or '' for this server's clock
-- Gives the ms for which it is still blocked, or 0
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
return math.max(0, tonumber(redis.call('HGET', KEYS[1], 'b') or 0) - now)
