-- Prepended to every script that needs the time.
--
-- ARGV  [1] now in ms since 1970, or '' for this server's clock
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
