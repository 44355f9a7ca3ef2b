-- Counts failed attempts of addresses, and blocks those that reach the number.
--
-- KEYS  hash of an address each (n failures since t, t time of the first in ms, b blocked until, ms)
-- ARGV  [1] read by now.lua
--       [2] failures that block   [3] within how many ms of the first   [4] for how many ms
-- Gives per address the ms for which it was blocked already, 0 where the failure was counted, or -1 where it was
-- counted and blocks the address
local max, window, block = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local reply = {}
for i, key in ipairs(KEYS) do
  local row = redis.call('HMGET', key, 'n', 't', 'b')
  local n, first, blocked_until = tonumber(row[1] or 0), tonumber(row[2] or 0), tonumber(row[3] or 0)
  -- A clock that was ahead for a moment must not block for longer than the policy says.
  if blocked_until > now + block then
    blocked_until = now + block
    redis.call('HSET', key, 'b', blocked_until)
    redis.call('PEXPIRE', key, block)
  end
  if first > now then n = 0 end
  if blocked_until > now then
    reply[i] = blocked_until - now
  else
    -- A server whose memory is full refuses what would take more of it, but nothing once a script has written: so HSET
    -- comes first, or failures would grow past maxmemory. DEL is for a clock of tests alone: an entry ends with its block.
    if blocked_until > 0 then redis.call('DEL', key) end
    if blocked_until > 0 or n == 0 or first + window <= now then n, first = 0, now end
    if n + 1 >= max then
      redis.call('HSET', key, 'b', now + block)
      redis.call('PEXPIRE', key, block)
      reply[i] = -1
    else
      redis.call('HSET', key, 'n', n + 1, 't', first)
      redis.call('PEXPIRE', key, first + window - now)
      reply[i] = 0
    end
  end
end
return reply
