-- Continues take_hour.lua. Answers a batch of questions: is the address blocked, have the key or its owner changed, is there room for the cost in
-- every limit? One call compares and counts in one step, so N workers never admit more than a limit.
-- limiter/counters.py does the same arithmetic.
--
-- KEYS  per question: [1] hash of the address (b blocked until, ms), [2] hash of the API key, [3] hash of its owner,
--       and [4], for a charge that has a name, a string with the windows that it was charged to
--       Hash of a key or owner: g generation, o name of the owner's hash (of a key), h number of the hour's window,
--       n units in it, p units in the window before; c the other counters (MessagePack): id, h, n, p of each in turn
-- ARGV  [1] read by now.lua
--       [2] a new generation, for keys and owners without one
--       [3] r if this server signs generations
--       [4] seconds for which a hash is kept at least   [5] ms of the longest block
--       then per question: generation of the row, the limits, and a number, the sum of
--       the row (0: the asker has none, 1: remembered, 2: read for this request), 3 to charge, 6 to check for a block,
--       12 for a charge that has a name: then also ms for which it is kept, and '' to charge it, or what was used of
--       each limit, to settle it
--       A limit is '<counter> <limit> <window in ms, 0: a month> <cost> <kind>;', the kind f fixed or s sliding,
--       in capitals for a limit of the owner. The most frequent question, a unit of one fixed hour of the key and
--       nothing else, has the limit's number instead.
-- Gives per question five items: verdict (0 admitted, 1 limited, 2 blocked, 3 stale), generation, hour, wait in whole
--       seconds, at least 1, and a list with three integers per limit: units left, seconds until the window ends or the
--       cost fits, end of the window in s since 1970; then the positions, from 0, of the limits without room
local HOUR, DAY, STEP, TICKS, MAX_USED, MAX_COUNTERS = 3600000, 86400000, 10000, 3600000, 2000000000, 32
local floor, ceil, min, max, call = math.floor, math.ceil, math.min, math.max, redis.call
local hour, keep, longest_block = floor(now / HOUR), tonumber(ARGV[4]), tonumber(ARGV[5])
local hour_ends_s = (hour + 1) * 3600
local hour_left_s = max(1, ceil((hour_ends_s * 1000 - now) / 1000))
-- holders: name to the hash of a key or owner, read once per batch and written once:
--   [1] g, [2] h, [3] n, [4] p, [5] the other counters in one list; nil what was not read
-- A counter is a list and a position in it: the hour's is a holder and 1, others are in its [5]. Behind the position are
-- the number of the window, the units in it and the units in the window before.
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
  -- What must be read of the key and of the owner: 1 the generation, 4 also the hour, 5 all counters.
  found = {key_depth = 1, owner_depth = 1, key_life = 0, owner_life = 0, ids = {}}
  local key_counters, owner_counters = 0, 0
  for id, limit, length, cost, kind in string.gmatch(spec, '([^ ;]*) (%d+) (%d+) (%d+) (%a);') do
    local one = {id = id, limit = tonumber(limit), length = tonumber(length), cost = tonumber(cost)}
    one.sliding, one.owner = kind == 's' or kind == 'S', kind == 'F' or kind == 'S'
    one.index, one.current_length, one.ends = window_of(one.length)
    one.left = one.ends - now
    one.left_s, one.ends_s = max(1, ceil(one.left / 1000)), floor(one.ends / 1000)
    local depth, life = id == '' and 4 or 5, one.left + (one.sliding and one.length or 0)
    if one.owner then
      found.owner_depth, found.owner_life = max(found.owner_depth, depth), max(found.owner_life, life)
      if depth == 5 then one.at, owner_counters = 4 * owner_counters + 1, owner_counters + 1 end
    else
      found.key_depth, found.key_life = max(found.key_depth, depth), max(found.key_life, life)
      if depth == 5 then one.at, key_counters = 4 * key_counters + 1, key_counters + 1 end
    end
    found.ids[id] = true
    found[#found + 1] = one
  end
  specs[spec] = found
  return found
end

local function load(name, depth)
  local holder = holders[name]
  if not holder then
    if depth == 1 then
      holder = {call('HGET', name, 'g')}
    elseif depth == 4 then
      holder = call('HMGET', name, 'g', 'h', 'n', 'p')
    else
      holder = call('HMGET', name, 'g', 'h', 'n', 'p', 'c')
    end
    holders[name] = holder
  elseif holder[depth] == nil then
    local more = call('HMGET', name, 'h', 'n', 'p', 'c')
    for i = #holder, 4 do holder[i + 1] = more[i] end
  else
    return holder
  end
  if depth > 1 then
    holder[2], holder[3], holder[4] = tonumber(holder[2]) or -1, tonumber(holder[3]) or 0, tonumber(holder[4]) or 0
    local packed = holder[5]
    if packed ~= nil and type(packed) ~= 'table' then holder[5] = packed and cmsgpack.unpack(packed) or {} end
  end
  return holder
end

-- The list and the position of a limit's counter.
local function counter_of(limits, limit, holder)
  local at = limit.at
  if not at then return holder, 1 end
  local list = holder[5]
  if list[at] == limit.id then return list, at end
  for i = 1, #list, 4 do
    if list[i] == limit.id then return list, i end
  end
  at = #list + 1
  if at > 4 * MAX_COUNTERS then
    -- Counters of limits that were replaced must not pile up.
    at = 1
    while limits.ids[list[at]] do at = at + 4 end
  end
  list[at], list[at + 1], list[at + 2], list[at + 3] = limit.id, -1, 0, 0
  return list, at
end

-- Have a hash written at the end.
local function touch(name, holder)
  if not holder.touched then
    holder.touched = true
    touched[#touched + 1] = name
  end
end

-- Have it kept for this long from now, too.
local function refresh(name, holder, life_ms)
  touch(name, holder)
  holder.ttl = max(holder.ttl or 0, keep + ceil(life_ms / 1000))
end

local function mark(name, holder, list)
  if list == holder then holder.hour_changed = true else holder.list_changed = true end
  touch(name, holder)
end

-- Move a counter on to this moment. Gives the ms until its window ends, and when it ends.
local function roll(limit, list, at, name, holder, life)
  local index = list[at + 1]
  if index == limit.index then return limit.left, limit.ends end
  if index > limit.index then
    -- A clock that stepped back leaves the window that began; one that was further ahead was wrong.
    local _, length, ends = window_of(limit.length, index)
    if ends - length - now <= min(STEP, length) then return min(ends - now, length), ends end
  else
    list[at + 2], list[at + 3] = 0, index == limit.index - 1 and list[at + 2] or 0
  end
  list[at + 1] = limit.index
  if list == holder then holder.hour_turned = true end
  mark(name, holder, list)
  refresh(name, holder, life)
  return limit.left, limit.ends
end

local function ticks_of(length)
  local tick = max(1, ceil(length / TICKS))
  return tick, ceil(length / tick)
end

-- ms until a cost fits that does not fit now.
local function wait_for(limit, list, at, left)
  local cost = limit.cost
  if not limit.sliding or cost > limit.limit then return left end
  local tick, ticks = ticks_of(limit.length)
  local spare = limit.limit - list[at + 2] - cost
  if spare >= 0 then return max(1, left - floor(spare * ticks / list[at + 3]) * tick) end
  return max(1, left + limit.length - min(ticks, floor((limit.limit - cost) * ticks / list[at + 2])) * tick)
end

local THIS_HOUR = {
  length = HOUR, index = hour, left = hour_ends_s * 1000 - now, ends = hour_ends_s * 1000,
}

-- The most frequent question: a unit of one fixed hour of the key. What use() does, without what it does not need.
local function use_hour(limit, name, key, generation)
  local left_s, ends_s = hour_left_s, hour_ends_s
  if key[2] ~= hour then
    local left, ends = roll(THIS_HOUR, key, 1, name, key, HOUR)
    left_s, ends_s = max(1, ceil(left / 1000)), floor(ends / 1000)
  end
  local free = limit - key[3]
  if free < 1 then return answer(1, generation, left_s, {max(0, free), left_s, ends_s, 0}) end
  key[3] = key[3] + 1
  mark(name, key, key)
  answer(0, generation, left_s, {free - 1, left_s, ends_s})
end

-- Of each limit of a question: its counter, units that are left (below 0: a debt), and ms until its window ends. Used
-- again for each question.
local lists, positions, free, left = {}, {}, {}, {}

local function charge(i, limit, units, key_name, key, owner_name, owner)
  local list, at = lists[i], positions[i]
  list[at + 2] = min(list[at + 2] + units, MAX_USED)
  if limit.owner then mark(owner_name, owner, list) else mark(key_name, key, list) end
end

-- Settle a charge by what was used of each limit: return units to the windows that they came from, or charge more.
local function settle(limits, key_name, key, owner_name, owner, windows, actual)
  local next_window, next_actual = string.gmatch(windows, '%-?%d+'), string.gmatch(actual, '%d+')
  for i = 1, #limits do
    local limit, list, at = limits[i], lists[i], positions[i]
    local window, more = tonumber(next_window()), tonumber(next_actual()) - limit.cost
    if more > 0 or list[at + 1] == window then
      charge(i, limit, max(more, -list[at + 2]), key_name, key, owner_name, owner)
    elseif list[at + 1] == window + 1 then
      list[at + 3] = max(0, list[at + 3] + more)
      charge(i, limit, 0, key_name, key, owner_name, owner)
    end
  end
end

-- Move the counters of all limits on to this moment.
local function find_counters(limits, key_name, key, owner_name, owner)
  for i = 1, #limits do
    local limit = limits[i]
    local list, at
    if limit.owner then
      list, at = counter_of(limits, limit, owner)
      left[i] = roll(limit, list, at, owner_name, owner, limits.owner_life)
    else
      list, at = counter_of(limits, limit, key)
      left[i] = roll(limit, list, at, key_name, key, limits.key_life)
    end
    lists[i], positions[i] = list, at
  end
end

-- Whether nothing is left to charge: a charge with this name was made before, or this settles it.
local function was_charged(limits, key_name, key, owner_name, owner, record, keep_ms, actual)
  local known = call('GET', record)
  if known and known ~= '' and actual ~= '' then
    settle(limits, key_name, key, owner_name, owner, known, actual)
    call('SET', record, '', 'PX', keep_ms)
  end
  return known or actual ~= ''
end

local function use(limits, key_name, key, owner_name, owner, generation, record, keep_ms, actual)
  local states, exhausted, wait, n = {}, nil, 0, #limits
  find_counters(limits, key_name, key, owner_name, owner)
  local is_done = record and was_charged(limits, key_name, key, owner_name, owner, record, keep_ms, actual)
  for i = 1, n do
    local limit, list, at = limits[i], lists[i], positions[i]
    local left_ms, cost = left[i], is_done and 0 or limit.cost
    local left_s, ends_s, room = limit.left_s, limit.ends_s, limit.limit - list[at + 2]
    if list[at + 1] ~= limit.index then
      local _, _, ends = window_of(limit.length, list[at + 1])
      left_s, ends_s = max(1, ceil(left_ms / 1000)), floor(ends / 1000)
    end
    if limit.sliding and list[at + 3] > 0 then
      local tick, ticks = ticks_of(limit.length)
      room = room - ceil_div(list[at + 3] * ceil(left_ms / tick), ticks)
    end
    if room < cost and not is_done then
      left_s = max(1, ceil(wait_for(limit, list, at, left_ms) / 1000))
      wait = max(wait, left_s)
      exhausted = exhausted or {}
      exhausted[#exhausted + 1] = i - 1
    end
    free[i] = room
    states[3 * i - 2], states[3 * i - 1], states[3 * i] = max(0, room - cost), left_s, ends_s
  end
  if exhausted then
    for i = 1, n do states[3 * i - 2] = max(0, free[i]) end
    for i = 1, #exhausted do states[3 * n + i] = exhausted[i] end
    return answer(1, generation, wait, states)
  end
  if record and not is_done then
    local windows = {}
    for i = 1, n do windows[i] = lists[i][positions[i] + 1] end
    call('SET', record, table.concat(windows, ' '), 'PX', keep_ms)
  end
  if not is_done then
    for i = 1, n do
      local cost = limits[i].cost
      if cost > 0 then charge(i, limits[i], cost, key_name, key, owner_name, owner) end
    end
  end
  -- A write in any case, so that a server that may not write (demoted, or cut off from its replicas) admits nothing.
  if not key.touched then refresh(key_name, key, 0) end
  answer(0, generation, states[2] or hour_left_s, states)
end

local function blocked_ms(address)
  local ms = blocks[address]
  if ms then return ms end
  ms = max(0, tonumber(call('HGET', address, 'b') or 0) - now)
  if ms > longest_block then
    -- Begun while the clock was ahead.
    ms = longest_block
    call('HSET', address, 'b', now + ms)
    call('PEXPIRE', address, ms)
  end
  blocks[address] = ms
  return ms
end

-- Give a generation to a key or owner without one. Only for an asker with the key's row, so that strangers cannot fill
-- this server with keys.
local function create(name, holder)
  holder[1], holder.is_new = ARGV[2], true
  refresh(name, holder, 0)
end

local function question(k, a, record, keep_ms, actual)
  local how = tonumber(ARGV[a + 2])
  if how % 12 >= 6 then
    local ms = blocked_ms(KEYS[k])
    if ms > 0 then return answer(2, '', max(1, ceil(ms / 1000))) end
  end
  local has_row, spec, key_name, owner_name = how % 3 > 0, ARGV[a + 1], KEYS[k + 1], KEYS[k + 2]
  local hourly = tonumber(spec)
  local limits = not hourly and limits_of(spec)
  local key = load(key_name, hourly and 4 or limits.key_depth)
  if not has_row then owner_name = call('HGET', key_name, 'o') end
  local owner = owner_name and load(owner_name, hourly and 1 or limits.owner_depth)
  if has_row then
    if not key[1] then create(key_name, key) end
    if not owner[1] then create(owner_name, owner) end
    key.owner_name = owner_name
  end
  local generation = key[1] and owner and owner[1] and key[1] .. '.' .. owner[1] .. signature or ''
  if how % 3 ~= 2 and (generation == '' or generation ~= ARGV[a]) then return answer(3, generation, 1) end
  if how % 6 < 3 then return answer(0, generation, hour_left_s) end
  if hourly then return use_hour(hourly, key_name, key, generation) end
  use(limits, key_name, key, owner_name, owner, generation, record, keep_ms, actual)
end

-- What was counted, in one write per hash; HSET first, which is what a server whose memory is full refuses.
local function write(name, holder)
  if holder.hour_changed and not holder.ttl and not holder.list_changed then
    call('HSET', name, 'n', holder[3])
    return
  end
  local values, n = {}, 0
  if holder.is_new then values[1], values[2], n = 'g', holder[1], 2 end
  if holder.ttl and holder.owner_name then
    values[n + 1], values[n + 2], n = 'o', holder.owner_name, n + 2
  end
  if holder.hour_turned then
    values[n + 1], values[n + 2], values[n + 3], values[n + 4], n = 'h', holder[2], 'p', holder[4], n + 4
  end
  if holder.hour_changed then values[n + 1], values[n + 2], n = 'n', holder[3], n + 2 end
  if holder.list_changed then values[n + 1], values[n + 2], n = 'c', cmsgpack.pack(holder[5]), n + 2 end
  if n > 0 then call('HSET', name, unpack(values)) end
  if holder.ttl then call('EXPIRE', name, holder.ttl) end
end

local k, a, last = 1, 6, #ARGV
while a <= last do
  if tonumber(ARGV[a + 2]) >= 12 then
    question(k, a, KEYS[k + 3], ARGV[a + 3], ARGV[a + 4])
    k, a = k + 4, a + 5
  else
    question(k, a)
    k, a = k + 3, a + 3
  end
end
for i = 1, #touched do
  local holder = holders[touched[i]]
  -- The generation of the owner lives at least as long as that of its keys.
  if holder.ttl and holder.owner_name then refresh(holder.owner_name, holders[holder.owner_name], 0) end
end
for i = 1, #touched do write(touched[i], holders[touched[i]]) end
return reply
