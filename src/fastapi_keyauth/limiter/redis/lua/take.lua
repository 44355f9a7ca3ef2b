-- Answers a batch of questions, each: is the address blocked, has the key changed, is a unit of its hour left?
-- All in one call, so that count and compare are one step and N workers cannot admit one more than the cap.
--
-- KEYS  per question: [1] hash of the address (field b: blocked until, ms), [2] hash of the API key
--       (g generation, h hour of the last unit, n units in it, p units in the hour before)
-- ARGV  [1] read by now.lua
--       [2] a fresh generation, for keys that have none
--       [3] s sliding window or f fixed window, and r where this server shall sign generations
--       [4] seconds for which a key's hash is kept
--       then per question: generation of the row, cap (-1: none), and in one number the sum of
--       the row (0: the asker has none, 1: remembered, 2: read for this request), 3 to use a unit, 6 to look at the block
-- Gives per question five integers and strings: verdict (0 admitted, 1 limited, 2 blocked, 3 stale),
--       generation, remaining (-1: no cap), hour, wait in whole seconds, at least 1
local HOUR = 3600000
local this_hour = math.floor(now / HOUR)
local reply = {}
local sliding = string.sub(ARGV[3], 1, 1) == 's'
-- A server that takes over, and one that was started anew, has another replication id. So a generation that is signed
-- with it proves nothing once another server may have lost, or this one may have missed, a change.
local signature = ''
if string.sub(ARGV[3], 2) == 'r' then
  signature = '@' .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

local function answer(verdict, generation, remaining, hour, wait_ms)
  local n, wait = #reply, math.max(1, math.ceil(wait_ms / 1000))
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = verdict, generation, remaining, hour, wait
end

local function use(key, generation, hour, n, p, limit)
  local left = (hour + 1) * HOUR - now
  if left < 1 then left = 1 end
  local weighted = n * HOUR
  if sliding then weighted = weighted + p * math.min(left, HOUR) end
  local room = limit * HOUR - weighted - HOUR
  if room >= 0 then
    redis.call('HSET', key, 'h', hour, 'n', n + 1, 'p', p)
    return answer(0, generation, math.floor(room / HOUR), hour, left)
  end
  local wait = left
  if sliding then
    local free = limit - n - 1
    if free >= 0 then
      wait = left - math.floor(free * HOUR / p)
    else
      wait = left + HOUR - math.floor((limit - 1) * HOUR / n)
    end
  end
  return answer(1, generation, 0, hour, wait)
end

local function question(address, key, at)
  local how = tonumber(ARGV[at + 2])
  local has_row, fresh, units, looks = how % 3 > 0, how % 3 == 2, how % 6 >= 3, how >= 6
  if looks then
    local blocked_until = tonumber(redis.call('HGET', address, 'b') or 0)
    if blocked_until > now then
      return answer(2, '', -1, this_hour, blocked_until - now)
    end
  end
  local row = redis.call('HMGET', key, 'g', 'h', 'n', 'p')
  local generation = row[1]
  if generation then
    generation = generation .. signature
  elseif has_row then
    -- Only for who has the key's row, so that strangers cannot fill this server with keys.
    redis.call('HSET', key, 'g', ARGV[2])
    redis.call('EXPIRE', key, ARGV[4])
    generation = ARGV[2] .. signature
    if not fresh then return answer(3, generation, -1, this_hour, 0) end
  end
  if not fresh and generation ~= ARGV[at] then
    return answer(3, generation or '', -1, this_hour, 0)
  end
  local limit = tonumber(ARGV[at + 1])
  if limit < 0 or not units then
    -- A write, so that a server that may not write (demoted, or cut off from its replicas) admits nothing.
    if units then redis.call('EXPIRE', key, ARGV[4]) end
    return answer(0, generation or '', -1, this_hour, (this_hour + 1) * HOUR - now)
  end
  local hour, n, p = tonumber(row[2] or -1), tonumber(row[3] or 0), tonumber(row[4] or 0)
  if hour < this_hour then
    if hour == this_hour - 1 then p = n else p = 0 end
    hour, n = this_hour, 0
    redis.call('EXPIRE', key, ARGV[4])
  end
  return use(key, generation, hour, n, p, limit)
end

for i = 1, #KEYS / 2 do
  question(KEYS[2 * i - 1], KEYS[2 * i], 3 * i + 2)
end
return reply
