-- Counts failed attempts of addresses, and blocks the addresses that reach the limit.
--
-- KEYS  hashes of addresses (n failed attempts, t time of the first in ms since 1970, b blocked until, ms since 1970)
-- ARGV  [1] read by now.lua
--       [2] failed attempts that block   [3] window from the first one in ms   [4] length of a block in ms
-- Returns for each address the ms for which it was blocked already, 0 if the attempt was counted, or -1 if it was
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
    -- When its memory is full, Redis rejects the first write of a script that needs memory, but no later one. So HSET
    -- comes first. DEL runs only with the clock of tests, since an entry expires with its block.
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
