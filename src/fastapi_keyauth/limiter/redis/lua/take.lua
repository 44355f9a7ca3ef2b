-- Answers a batch of questions, each: is the address blocked, have the key or its owner changed, is there room for the
-- cost in every limit? All in one call, so that comparing and counting are one step, and N workers never admit more.
-- limiter/counters.py does the same arithmetic.
--
-- KEYS  per question: [1] hash of the address (b blocked until, ms), [2] hash of the API key, [3] hash of its owner,
--       and [4] a string with the windows of a charge that has a name
--       Hash of a key or owner: g generation, o the owner's hash (of a key), and per counter, below its id,
--       h number of the window, n units in it, p units in the window before
-- ARGV  [1] read by now.lua
--       [2] a fresh generation, for keys and owners that have none
--       [3] r if this server shall sign generations
--       [4] seconds for which a hash is kept at least   [5] ms of the longest block
--       then per question: generation of the row, the limits, and in one number the sum of
--       the row (0: the asker has none, 1: remembered, 2: read for this request), 3 to charge, 6 to check for a block,
--       12 for a charge that has a name: then also ms for which it is kept, and '' to charge it, or what was used of
--       each limit, to settle it
--       A limit is '<counter> <limit> <window in ms, 0: a month> <cost> <kind>;', the kind f fixed or s sliding,
--       in capitals for a limit of the owner
-- Gives per question five items: verdict (0 admitted, 1 limited, 2 blocked, 3 stale), generation, hour, wait in whole
--       seconds, at least 1, and a list with three integers per limit: units left, seconds until the window ends or the
--       cost fits, end of the window in s since 1970; then the positions, from 0, of the limits without room
local HOUR, STEP, TICKS, MAX_USED, MAX_FIELDS = 3600000, 10000, 3600000, 2000000000, 120
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
local hour, keep, longest_block = floor(now / HOUR), tonumber(ARGV[4]), tonumber(ARGV[5])
-- A server that takes over, and one that was started again, has another replication id. So a generation that is signed
-- with it proves nothing once another server may have lost, or this one may have missed, a change.
local signature = ''
if ARGV[3] == 'r' then
  signature = '@' .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end
local reply, size, specs, holders, touched, blocks = {}, 0, {}, {}, {}, {}

local function answer(verdict, generation, wait, states)
  reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4], reply[size + 5] =
    verdict, generation, hour, wait, states or {}
  size = size + 5
end

-- Exact for integers below 2^53.
local function ceil_div(a, b)
  local rest = a % b
  return (a - rest) / b + (rest > 0 and 1 or 0)
end

-- The month's number, 12 times the year plus 0 to 11, from the days since 1970, and the days before a month
-- (http://howardhinnant.github.io/date_algorithms.html)
local function month_at(days)
  local z = days + 719468
  local era = floor(z / 146097)
  local of_era = z - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  return (year + era * 400) * 12 + floor((5 * of_year + 2) / 153) + 2
end

local function days_before(month)
  local from_march = month - 2
  local year, m = floor(from_march / 12), from_march % 12
  local era = floor(year / 400)
  local of_era = year - era * 400
  return era * 146097 + of_era * 365 + floor(of_era / 4) - floor(of_era / 100) + floor((153 * m + 2) / 5) - 719468
end

local DAY = 86400000

-- Number, length and end of the window of this moment, or of the one with this number.
local function window_of(length, index)
  if length > 0 then
    index = index or floor(now / length)
    return index, length, (index + 1) * length
  end
  index = index or month_at(floor(now / DAY))
  local ends = days_before(index + 1)
  return index, (ends - days_before(index)) * DAY, ends * DAY
end

local function limits_of(spec)
  local found = specs[spec]
  if found then return found end
  found = {key = {fields = {'g'}}, owner = {fields = {'g'}}}
  for id, limit, length, cost, kind in string.gmatch(spec, '([^ ;]*) (%d+) (%d+) (%d+) (%a);') do
    local one = {
      id = id, h = id .. 'h', n = id .. 'n', p = id .. 'p', limit = tonumber(limit), length = tonumber(length),
      cost = tonumber(cost), sliding = kind == 's' or kind == 'S', owner = kind == 'F' or kind == 'S',
    }
    local side = one.owner and found.owner or found.key
    local fields = side.fields
    local n = #fields
    fields[n + 1], fields[n + 2], fields[n + 3] = one.h, one.n, one.p
    side[#side + 1] = one
    found[#found + 1] = one
  end
  specs[spec] = found
  return found
end

-- The hash of a key or owner, read once per batch, with the counters of these limits.
local function load(name, side)
  local holder = holders[name]
  if holder and holder[side] then return holder end
  local row = redis.call('HMGET', name, unpack(side.fields))
  if not holder then
    holder = {name = name, g = row[1], counters = {}}
    holders[name] = holder
  end
  for i = 1, #side do
    local id = side[i].id
    if not holder.counters[id] then
      holder.counters[id] = {h = tonumber(row[3 * i - 1]) or -1, n = tonumber(row[3 * i]) or 0,
        p = tonumber(row[3 * i + 1]) or 0}
    end
  end
  holder[side] = true
  return holder
end

-- Have a hash written at the end, and kept for at least this long from now.
local function refresh(holder, seconds)
  if not holder.touched then
    holder.touched = true
    touched[#touched + 1] = holder
  end
  if seconds then holder.ttl = max(holder.ttl or keep, seconds) end
end

-- Move a counter on to this moment. Gives the ms until its window ends, and when it ends.
local function roll(holder, limit, counter)
  local index, length, ends = window_of(limit.length)
  if counter.h < index then
    counter.p = counter.h == index - 1 and counter.n or 0
    counter.h, counter.n, counter.turned = index, 0, true
  elseif counter.h > index then
    -- A clock that stepped back leaves the window that began; one that was further ahead was wrong.
    local _, stored_length, stored_end = window_of(limit.length, counter.h)
    if stored_end - stored_length - now <= min(STEP, stored_length) then
      length, ends = stored_length, stored_end
    else
      counter.h, counter.turned = index, true
    end
  end
  counter.life = ends - now + (limit.sliding and length or 0)
  return min(ends - now, length), ends
end

local function charge(holder, limit, counter, units)
  if counter.turned then
    refresh(holder, keep)
    holder.turned = true
  end
  if units ~= 0 then
    counter.n, counter.changed = min(counter.n + units, MAX_USED), true
    refresh(holder)
  end
end

local function ticks_of(length)
  local tick = max(1, ceil(length / TICKS))
  return tick, ceil(length / tick)
end

-- Units that are left, below 0: a debt.
local function free_of(limit, counter, left)
  local free = limit.limit - counter.n
  if limit.sliding and counter.p > 0 then
    local tick, ticks = ticks_of(limit.length)
    free = free - ceil_div(counter.p * ceil(left / tick), ticks)
  end
  return free
end

-- ms until a cost fits that does not fit now.
local function wait_for(limit, counter, cost, left)
  if not limit.sliding or cost > limit.limit then return left end
  local tick, ticks = ticks_of(limit.length)
  local spare = limit.limit - counter.n - cost
  if spare >= 0 then return max(1, left - floor(spare * ticks / counter.p) * tick) end
  return max(1, left + limit.length - min(ticks, floor((limit.limit - cost) * ticks / counter.n)) * tick)
end

-- Settle a charge by what was used of each limit: return units to the windows that they came from, or charge more.
local function settle(limits, key, owner, windows, actual)
  local next_window, next_actual = string.gmatch(windows, '%-?%d+'), string.gmatch(actual, '%d+')
  for i = 1, #limits do
    local limit = limits[i]
    local holder = limit.owner and owner or key
    local counter, index, more = holder.counters[limit.id], tonumber(next_window()), tonumber(next_actual()) - limit.cost
    roll(holder, limit, counter)
    if more > 0 then
      charge(holder, limit, counter, more)
    elseif counter.h == index then
      charge(holder, limit, counter, max(more, -counter.n))
    elseif counter.h == index + 1 then
      counter.p, counter.turned = max(0, counter.p + more), true
      charge(holder, limit, counter, 0)
    end
  end
end

local function use(limits, key, owner, generation, record, keep_ms, actual)
  local states, free, exhausted, fits, wait = {}, {}, {}, true, 0
  local is_done = false
  if record then
    local known = redis.call('GET', record)
    is_done = known or actual ~= ''
    if known and known ~= '' and actual ~= '' then
      settle(limits, key, owner, known, actual)
      redis.call('SET', record, '', 'PX', keep_ms)
    end
  end
  for i = 1, #limits do
    local limit = limits[i]
    local holder = limit.owner and owner or key
    local counter, cost = holder.counters[limit.id], is_done and 0 or limit.cost
    local left_ms, ends = roll(holder, limit, counter)
    free[i] = free_of(limit, counter, left_ms)
    states[3 * i - 2], states[3 * i - 1], states[3 * i] = free[i], max(1, ceil(left_ms / 1000)), floor(ends / 1000)
    if free[i] < cost and not is_done then
      fits = false
      exhausted[#exhausted + 1] = i - 1
      states[3 * i - 1] = max(1, ceil(wait_for(limit, counter, cost, left_ms) / 1000))
      wait = max(wait, states[3 * i - 1])
    end
  end
  if not fits then
    for i = 1, #limits do
      local limit = limits[i]
      local holder = limit.owner and owner or key
      charge(holder, limit, holder.counters[limit.id], 0)
      states[3 * i - 2] = max(0, free[i])
    end
    for i = 1, #exhausted do states[3 * #limits + i] = exhausted[i] end
    return answer(1, generation, wait, states)
  end
  if record and not is_done then
    local windows = {}
    for i = 1, #limits do windows[i] = ((limits[i].owner and owner or key).counters[limits[i].id]).h end
    redis.call('SET', record, table.concat(windows, ' '), 'PX', keep_ms)
  end
  for i = 1, #limits do
    local limit = limits[i]
    local holder, cost = limit.owner and owner or key, is_done and 0 or limit.cost
    charge(holder, limit, holder.counters[limit.id], cost)
    states[3 * i - 2] = max(0, free[i] - cost)
  end
  -- A write in any case, so that a server that may not write (demoted, or cut off from its replicas) admits nothing.
  if not key.touched then refresh(key, keep) end
  return answer(0, generation, states[2] or max(1, ceil(((hour + 1) * HOUR - now) / 1000)), states)
end

local function blocked_ms(address)
  local left = blocks[address]
  if not left then
    left = max(0, tonumber(redis.call('HGET', address, 'b') or 0) - now)
    if left > longest_block then
      -- Begun while the clock was ahead.
      left = longest_block
      redis.call('HSET', address, 'b', now + left)
      redis.call('PEXPIRE', address, left)
    end
    blocks[address] = left
  end
  return left
end

local function give_generation(holder, has_row)
  if not holder.g and has_row then
    -- Only for an asker with the key's row, so that strangers cannot fill this server with keys.
    holder.g, holder.is_new = ARGV[2], true
    refresh(holder, keep)
  end
  return holder.g
end

local function question(k, a, record, keep_ms, actual)
  local how = tonumber(ARGV[a + 2])
  local has_row, fresh, charges, looks = how % 3 > 0, how % 3 == 2, how % 6 >= 3, how % 12 >= 6
  if looks then
    local left = blocked_ms(KEYS[k])
    if left > 0 then return answer(2, '', max(1, ceil(left / 1000))) end
  end
  local limits = limits_of(ARGV[a + 1])
  local key, owner_name = load(KEYS[k + 1], limits.key), KEYS[k + 2]
  if not has_row then owner_name = redis.call('HGET', KEYS[k + 1], 'o') end
  local owner = owner_name and load(owner_name, limits.owner)
  local key_generation, owner_generation = give_generation(key, has_row), owner and give_generation(owner, has_row)
  local generation = ''
  if key_generation and owner_generation then generation = key_generation .. '.' .. owner_generation .. signature end
  key.o = has_row and owner_name
  key.owner = owner
  if not fresh and (generation == '' or generation ~= ARGV[a]) then return answer(3, generation, 1) end
  if not charges then return answer(0, generation, max(1, ceil(((hour + 1) * HOUR - now) / 1000))) end
  return use(limits, key, owner, generation, record, keep_ms, actual)
end

-- What was counted, in one write per hash; HSET first, which is what a server whose memory is full refuses.
local function write(holder)
  local values, n, life = {}, 0, 0
  if holder.is_new then
    values[1], values[2], n = 'g', holder.g, 2
  end
  if holder.ttl and holder.o then
    values[n + 1], values[n + 2], n = 'o', holder.o, n + 2
  end
  for id, counter in pairs(holder.counters) do
    if counter.turned then
      values[n + 1], values[n + 2], values[n + 3], values[n + 4] = id .. 'h', counter.h, id .. 'p', counter.p
      n = n + 4
    end
    if counter.turned or counter.changed then
      values[n + 1], values[n + 2], n = id .. 'n', counter.n, n + 2
    end
    life = max(life, counter.life or 0)
  end
  if n > 0 then redis.call('HSET', holder.name, unpack(values)) end
  if holder.ttl then
    -- Counters of limits that were replaced must not pile up.
    if holder.turned and redis.call('HLEN', holder.name) > MAX_FIELDS then
      for _, field in ipairs(redis.call('HKEYS', holder.name)) do
        local id = string.match(field, '^(.+/)[hnp]$')
        if id and not holder.counters[id] then redis.call('HDEL', holder.name, field) end
      end
    end
    redis.call('EXPIRE', holder.name, max(holder.ttl, ceil(life / 1000) + keep))
  end
end

local k, a = 1, 6
while a <= #ARGV do
  if tonumber(ARGV[a + 2]) >= 12 then
    question(k, a, KEYS[k + 3], ARGV[a + 3], ARGV[a + 4])
    k, a = k + 4, a + 5
  else
    question(k, a)
    k, a = k + 3, a + 3
  end
end
for i = 1, #touched do
  local holder = touched[i]
  -- The generation of the owner lives as long as that of its keys.
  if holder.ttl and holder.owner then refresh(holder.owner, holder.ttl) end
end
for i = 1, #touched do write(touched[i]) end
return reply
