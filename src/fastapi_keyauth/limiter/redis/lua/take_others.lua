-- Prepended to take.lua, which describes KEYS, ARGV and the reply. Answers the questions that stand out: limits that
-- slide, a window that begins, a key without a generation, a charge with a name. Only a batch with such a question pays
-- for these functions, which are created again in each call.
local function answer_others(LIMIT, HEAD, USED, GRACE, now, usage_field, signature, reply, hours, lists)
  local HOUR, DAY, STEP, TICKS, MAX_USED, MAX_COUNTERS = 3600000, 86400000, 10000, 3600000, 2000000000, 32
  local call, floor, ceil, min, max = redis.call, math.floor, math.ceil, math.min, math.max
  local HOLD, MAX_LEASE, MIN_LEASE, LEASE_SHARE = 100, 1000, 10, 16
  local KEEP_USAGE = 259200  -- three days, in seconds: for as long the database may be unavailable
  local LIMIT_SIZE, FORMER = struct.size('<' .. LIMIT), HEAD .. USED .. USED
  local hour, keep, longest_block = floor(now / HOUR), tonumber(ARGV[4]), tonumber(ARGV[5])
  local hour_left_s = (hour + 1) * 3600 - floor(now / 1000)
  -- holders: name to the hash of a key or owner; blocks: of an address, in ms; ttls: of a hash, in seconds from now
  local holders, blocks, ttls = {}, {}, {}

  local function answer(verdict, generation, wait, states)
    local size = #reply
    reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4], reply[size + 5] =
      verdict, generation, hour, wait, states or {}
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

  local all_limits = {}

  -- Limits as they are sent, or the number of the one limit of a fixed hour.
  local function limits_of(spec, hourly)
    local found = all_limits[spec]
    if found then return found end
    -- The counters that are in use, in their order.
    found = {key_ids = {}, owner_ids = {}, key_life = 0, owner_life = 0}
    local count = hourly or #spec / LIMIT_SIZE
    local sent = hourly and {'the-hour', hourly, 1, 4, HOUR} or {struct.unpack('<' .. string.rep(LIMIT, count), spec)}
    for i = 1, #sent - 4, 5 do
      local id, kind = sent[i], sent[i + 3]
      local one = {id = id, limit = sent[i + 1], cost = sent[i + 2], length = sent[i + 4]}
      one.is_sliding, one.is_of_owner, one.is_hour = kind % 2 == 1, kind % 4 >= 2, kind >= 4
      one.index, one.current_length, one.ends = window_of(one.length)
      one.left = one.ends - now
      one.left_s, one.ends_s = max(1, ceil(one.left / 1000)), floor(one.ends / 1000)
      local ids, life = one.is_of_owner and found.owner_ids or found.key_ids, one.left
      if one.is_sliding then life = life + one.length end
      if one.is_of_owner then
        found.owner_life = max(found.owner_life, life)
      else
        found.key_life = max(found.key_life, life)
      end
      if not one.is_hour then
        ids[#ids + 1] = id
        one.at = 4 * #ids - 3
      end
      found[#found + 1] = one
    end
    all_limits[spec] = found
    return found
  end

  -- A hash, with what take.lua has added: its generation; the hour's counter, if it has fields of its own; the others in
  -- one list, those in use first. A counter is a name, the number of the window, units in it and in the one before.
  local function load(name)
    local holder = holders[name]
    if holder then return holder end
    local read = call('HMGET', name, 'g', 'h', 'n', 'p', 'l', 'm')
    local hour, list, counters = hours[name], lists[name], {}
    -- usage: fields to numbers that have changed
    holder = {generation = read[1], in_use = 0, usage = {}}
    local usage = hour and hour[4] or list and list[3]
    if type(usage) == 'number' then holder.usage[usage_field] = usage end
    holder.hour = {'the-hour', tonumber(read[2]) or -1, tonumber(read[3]) or 0, tonumber(read[4]) or 0}
    if hour and type(hour[3]) == 'number' then holder.hour[3], holder.hour_changed = hour[3], true end
    if read[5] and read[6] then
      local n = string.byte(read[5])
      local head = {struct.unpack('<' .. string.rep(HEAD, n), read[5], 2)}
      local units = {struct.unpack('<' .. string.rep(USED, n), read[5], head[2 * n + 1])}
      local before = {struct.unpack('<' .. string.rep(USED, n), read[6])}
      local rest = string.sub(read[6], before[n + 1])
      local former = {struct.unpack('<' .. string.rep(FORMER, #rest / struct.size('<' .. FORMER)), rest)}
      if list and type(list[2]) == 'table' and list[2][n + 2] then
        for i = 1, n do units[i] = list[2][i + 1] end
        holder.list_changed = true
      end
      for i = 1, n do
        counters[4 * i - 3], counters[4 * i - 2] = head[2 * i - 1], head[2 * i]
        counters[4 * i - 1], counters[4 * i] = units[i], before[i]
      end
      for i = 1, #former - 1 do counters[4 * n + i] = former[i] end
      holder.in_use = n
    end
    holder.counters, holders[name], hours[name], lists[name] = counters, holder, false, false
    return holder
  end

  -- Have the counters of these limits at the front of a list, in their order. Those of former limits follow, the last
  -- ones first, and must not pile up. The hour's counter moves, too: it has fields of its own as long as it is alone.
  local function arrange(ids, holder, is_alone)
    local list, found, positions = holder.counters, {}, {}
    local is_arranged = holder.in_use == #ids
    for i = 1, #ids do is_arranged = is_arranged and list[4 * i - 3] == ids[i] end
    if is_arranged and not (is_alone and #list > 0) then return end
    for i = 1, #list, 4 do positions[list[i]] = i end
    local function add(id)
      local to, from, source = #found, positions[id], list
      if not from and id == 'the-hour' and holder.hour[2] >= 0 then
        from, source = 1, holder.hour
        holder.hour, holder.hour_turned, holder.hour_changed = {'the-hour', -1, 0, 0}, true, true
      end
      found[to + 1], found[to + 2], found[to + 3], found[to + 4] = id, -1, 0, 0
      if from then found[to + 2], found[to + 3], found[to + 4] = source[from + 1], source[from + 2], source[from + 3] end
      positions[id] = nil
    end
    local at = is_alone and positions['the-hour']
    if at then
      holder.hour = {'the-hour', list[at + 1], list[at + 2], list[at + 3]}
      holder.hour_turned, holder.hour_changed, positions['the-hour'] = true, true, nil
    end
    for i = 1, #ids do add(ids[i]) end
    for i = 1, #list, 4 do
      if positions[list[i]] and #found < 4 * MAX_COUNTERS then add(list[i]) end
    end
    holder.counters, holder.in_use, holder.list_changed = found, #ids, true
  end

  -- Have a hash kept for this long from now, too.
  local function refresh(name, life_ms)
    ttls[name] = max(ttls[name] or 0, keep + ceil(life_ms / 1000))
  end

  local function mark(holder, list)
    if list == holder.hour then holder.hour_changed = true else holder.list_changed = true end
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
    if limit.is_hour then holder.hour_turned = true end
    mark(holder, list)
    refresh(name, life)
    return limit.left, limit.ends
  end

  local function ticks_of(length)
    local tick = max(1, ceil(length / TICKS))
    return tick, ceil(length / tick)
  end

  -- ms until a cost fits that does not fit now.
  local function wait_for(limit, list, at, left)
    local cost = limit.cost
    if not limit.is_sliding or cost > limit.limit then return left end
    local tick, ticks = ticks_of(limit.length)
    local spare = limit.limit - list[at + 2] - cost
    if spare >= 0 then return max(1, left - floor(spare * ticks / list[at + 3]) * tick) end
    return max(1, left + limit.length - min(ticks, floor((limit.limit - cost) * ticks / list[at + 2])) * tick)
  end

  -- Of each limit of a question: its counter, units that are left (below 0: a debt), and ms until its window ends. Used
  -- again for each question.
  local lists, positions, free, left = {}, {}, {}, {}

  local function add(i, limit, units, key, owner)
    local list, at = lists[i], positions[i]
    list[at + 2] = min(list[at + 2] + units, MAX_USED)
    mark(limit.is_of_owner and owner or key, list)
  end

  -- Settle a charge by what was used of each limit: return units to the windows that they came from, or charge more.
  local function settle(limits, key, owner, windows, actual)
    local next_window, next_actual = string.gmatch(windows, '%-?%d+'), string.gmatch(actual, '%d+')
    for i = 1, #limits do
      local limit, list, at = limits[i], lists[i], positions[i]
      local window, more = tonumber(next_window()), tonumber(next_actual()) - limit.cost
      if more > 0 or list[at + 1] == window then
        add(i, limit, max(more, -list[at + 2]), key, owner)
      elseif list[at + 1] == window + 1 then
        list[at + 3] = max(0, list[at + 3] + more)
        add(i, limit, 0, key, owner)
      end
    end
  end

  -- Move the counters of all limits on to this moment.
  local function find_counters(limits, key_name, key, owner_name, owner)
    arrange(limits.key_ids, key, limits[1] and limits[1].is_hour)
    arrange(limits.owner_ids, owner)
    for i = 1, #limits do
      local limit = limits[i]
      local name, holder, life = key_name, key, limits.key_life
      if limit.is_of_owner then name, holder, life = owner_name, owner, limits.owner_life end
      local list, at = holder.counters, limit.at
      if limit.is_hour then list, at = holder.hour, 1 end
      left[i] = roll(limit, list, at, name, holder, life)
      lists[i], positions[i] = list, at
    end
  end

  -- Whether nothing is left to charge: a charge with this name was made before, or this settles it. And whether it does.
  local function was_charged(limits, key, owner, record, keep_ms, actual)
    local known = call('GET', record)
    if known and known ~= '' and actual ~= '' then
      settle(limits, key, owner, known, actual)
      call('SET', record, '', 'PX', keep_ms)
      return true, true
    end
    return known or actual ~= '', false
  end

  -- Add to the usage of a key in an hour: a number of requests, or names and numbers of several units.
  local function count(name, key, hour_field, usage, times)
    if tonumber(usage) then usage = 'requests ' .. usage end
    for unit, units in string.gmatch(usage, '(%S+) (%d+)') do
      if units ~= '0' then
        local field = unit == 'requests' and hour_field or hour_field .. ':' .. unit
        local before = key.usage[field] or call('HGET', name, field)
        if not before then
          -- The first units of an hour.
          before, key.begins_usage = 0, true
          ttls[name] = max(ttls[name] or 0, KEEP_USAGE)
        end
        key.usage[field] = before + units * times
      end
    end
  end

  -- What a key or owner knows of its leases. Units out on leases that are over are forfeited.
  local function load_leases(name, holder)
    if holder.leases ~= nil then return end
    local read = call('HMGET', name, 'x', 'e')
    local ends = tonumber(read[1]) or 0
    if ends > now + MAX_LEASE then ends = 0 end -- set by a clock that was ahead
    holder.lease_ends, holder.leases = ends, read[2] and cmsgpack.unpack(read[2]) or false
    if holder.leases and now >= ends + GRACE then holder.leases = {holder.leases[1], holder.leases[2]} end
  end

  -- Whether a question waits for units to come back.
  local function is_held(holder)
    local hold = holder.leases and holder.leases[2] or 0
    return now < hold and hold <= now + MAX_LEASE + GRACE + HOLD
  end

  -- Position of the units of a counter that are out on lease, if its window is not before this one.
  local function find_out(limit, holder, window)
    local leases = holder.leases
    for i = 3, leases and #leases or 0, 3 do
      if leases[i] == limit.id then return leases[i + 1] >= window and i + 2 or nil end
    end
  end

  -- ms until units come back that a question needs, and keep them from being leased again meanwhile; nil if what is
  -- out is not enough.
  local function wait_for_leases(limits, exhausted, key_name, key, owner_name, owner)
    local wait = 0
    for i = 1, #exhausted do
      local n = exhausted[i] + 1
      local limit, list, at = limits[n], lists[n], positions[n]
      local name, holder = key_name, key
      if limit.is_of_owner then name, holder = owner_name, owner end
      load_leases(name, holder)
      local out = find_out(limit, holder, list[at + 1] - (limit.is_sliding and 1 or 0))
      if not out or free[n] + holder.leases[out] < limit.cost then return nil end
      wait = max(wait, holder.lease_ends + GRACE - now)
    end
    for i = 1, #exhausted do
      local holder = limits[exhausted[i] + 1].is_of_owner and owner or key
      holder.leases[2], holder.leases_changed = now + wait + HOLD, true
    end
    return wait
  end

  -- Units that are left of a limit, whose window ends in so many ms.
  local function room_of(limit, list, at, left_ms)
    local room = limit.limit - list[at + 2]
    if limit.is_sliding and list[at + 3] > 0 then
      local tick, ticks = ticks_of(limit.length)
      room = room - ceil_div(list[at + 3] * ceil(left_ms / tick), ticks)
    end
    return room
  end

  -- Seconds until the window of a counter ends, and when, in s since 1970.
  local function end_of(limit, list, at, left_ms)
    if list[at + 1] == limit.index then return limit.left_s, limit.ends_s end
    local _, _, ends = window_of(limit.length, list[at + 1])
    return max(1, ceil(left_ms / 1000)), floor(ends / 1000)
  end

  local function use(limits, key_name, key, owner_name, owner, generation, usage, record, keep_ms, actual)
    local states, exhausted, wait, n = {}, nil, 0, #limits
    local is_done, is_settled
    find_counters(limits, key_name, key, owner_name, owner)
    if record then is_done, is_settled = was_charged(limits, key, owner, record, keep_ms, actual) end
    for i = 1, n do
      local limit, list, at = limits[i], lists[i], positions[i]
      local left_ms, cost = left[i], is_done and 0 or limit.cost
      local left_s, ends_s = end_of(limit, list, at, left_ms)
      local room = room_of(limit, list, at, left_ms)
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
      local wait_ms = wait_for_leases(limits, exhausted, key_name, key, owner_name, owner)
      if wait_ms then return answer(4, generation, wait_ms) end
      for i = 1, n do states[3 * i - 2] = max(0, free[i]) end
      for i = 1, #exhausted do states[3 * n + i] = exhausted[i] end
      return answer(1, generation, wait, states)
    end
    if record and not is_done then
      local windows = {}
      for i = 1, n do windows[i] = lists[i][positions[i] + 1] end
      call('SET', record, n > 0 and table.concat(windows, ' ') or '-', 'PX', keep_ms)
    end
    if not is_done then
      for i = 1, n do
        local cost = limits[i].cost
        if cost > 0 then add(i, limits[i], cost, key, owner) end
      end
    end
    if is_settled or not is_done then count(key_name, key, usage_field, usage, 1) end
    -- A write in any case, so that a server that may not write (demoted, or cut off from its replicas) admits nothing.
    if not key.hour_changed and not key.list_changed then refresh(key_name, 0) end
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
    holder.generation, holder.is_new = ARGV[2], true
    refresh(name, 0)
  end

  local function generation_of(key, owner)
    if not key.generation or not owner or not owner.generation then return '' end
    return key.generation .. '.' .. owner.generation .. signature
  end

  local function limits_at(a, how)
    local hourly = how % 48 >= 24 and tonumber(ARGV[a + 1])
    return limits_of(hourly and ARGV[a + 1] or ARGV[ARGV[a + 1] + 0], hourly)
  end

  local function usage_at(a, how)
    return how % 48 >= 24 and '1' or ARGV[ARGV[a + 1] + 3]
  end

  local function question(k, a, how, record, keep_ms, actual, usage)
    if how % 12 >= 6 then
      local ms = blocked_ms(KEYS[k])
      if ms > 0 then return answer(2, '', max(1, ceil(ms / 1000))) end
    end
    local has_row, key_name, owner_name = how % 3 > 0, KEYS[k + 1], KEYS[k + 2]
    local key = load(key_name)
    if not has_row then owner_name = call('HGET', key_name, 'o') end
    local owner = owner_name and load(owner_name)
    if has_row then
      if not key.generation then create(key_name, key) end
      if not owner.generation then create(owner_name, owner) end
      key.owner_name = owner_name
    end
    local generation = generation_of(key, owner)
    if how % 3 ~= 2 and (generation == '' or generation ~= ARGV[a]) then return answer(3, generation, 1) end
    if how % 6 < 3 then return answer(0, generation, hour_left_s) end
    usage = usage or usage_at(a, how)
    use(limits_at(a, how), key_name, key, owner_name, owner, generation, usage, record, keep_ms, actual)
  end

  -- Units out on lease of a counter: those of an earlier window are over.
  local function add_out(limit, holder, window, units)
    local leases = holder.leases
    local at = find_out(limit, holder, limit.is_sliding and -1 or window)
    if not at then
      at = #leases + 3
      for i = 3, #leases, 3 do
        if leases[i] == limit.id then at = i + 2 end
      end
      leases[at] = 0
    end
    leases[at - 2], leases[at - 1], leases[at] = limit.id, window, leases[at] + units
  end

  -- Take units from all counters as if their requests had been admitted, for a lease of the key's row with this
  -- generation. It ends before any of the windows does, and gets a part of what is left. One ms less, since it is up to
  -- one ms later than the whole milliseconds of this clock say.
  local function grant(k, a, how)
    local key_name, owner_name = KEYS[k + 1], KEYS[k + 2]
    local key, owner = load(key_name), load(owner_name)
    local units, lasts = tonumber(ARGV[a + 3]), min(tonumber(ARGV[a + 4]), (hour + 1) * HOUR - now - 1)
    load_leases(key_name, key)
    load_leases(owner_name, owner)
    if generation_of(key, owner) ~= ARGV[a] or is_held(key) or is_held(owner) then return answer(0, '', 0) end
    local limits = limits_at(a, how)
    find_counters(limits, key_name, key, owner_name, owner)
    for i = 1, #limits do
      local limit = limits[i]
      free[i], lasts = room_of(limit, lists[i], positions[i], left[i]), min(lasts, left[i] - 1)
      if limit.cost > 0 then units = min(units, floor(max(0, free[i]) / (LEASE_SHARE * limit.cost))) end
    end
    if units < 1 or lasts < MIN_LEASE then return answer(0, '', 0) end
    for _, holder in ipairs({key, owner}) do
      if now >= holder.lease_ends + GRACE then holder.lease_ends = 0 end
      holder.leases = holder.leases or {ARGV[2], 0}
      holder.lease_ends, holder.leases_changed = max(holder.lease_ends, now + lasts), true
    end
    local states, windows = {}, {}
    for i = 1, #limits do
      local limit, list, at = limits[i], lists[i], positions[i]
      local left_s, ends_s = end_of(limit, list, at, left[i])
      add(i, limit, units * limit.cost, key, owner)
      add_out(limit, limit.is_of_owner and owner or key, list[at + 1], units * limit.cost)
      windows[i] = list[at + 1]
      states[3 * i - 2], states[3 * i - 1], states[3 * i] = max(0, free[i] - units * limit.cost), left_s, ends_s
    end
    states[#states + 1] = lasts
    local stamp = string.format('%.0f %s %s %s ', now + lasts, signature, key.leases[1], owner.leases[1])
    answer(units, stamp .. table.concat(windows, ' '), states[2] and #limits > 0 and states[2] or hour_left_s, states)
  end

  -- Take back a lease: units that it did not use return to the windows that they came from. A hash that was lost since,
  -- or is on another server, does not know it.
  local function give_back(k, a, how)
    local key_name, owner_name, used, unused = KEYS[k + 1], KEYS[k + 2], ARGV[a + 3] + 0, ARGV[a + 4] + 0
    local ends, signed, key_birth, owner_birth, windows = string.match(ARGV[a], '^(%d+) (%S*) (%S+) (%S+) (.*)$')
    local key = load(key_name)
    if used > 0 then
      -- Whatever this server knows, the requests were admitted. A lease ends with the hour at the latest.
      local used_in = ends and string.format('%.0f', floor((ends - 1) / HOUR)) or ARGV[a]
      count(key_name, key, 'u' .. used_in, usage_at(a, how), used)
    end
    if not ends or signed ~= signature then return answer(0, '', 0) end
    local owner = load(owner_name)
    load_leases(key_name, key)
    load_leases(owner_name, owner)
    local knows_key = key.leases and key.leases[1] == key_birth
    local knows_owner = owner.leases and owner.leases[1] == owner_birth
    if not knows_key and not knows_owner then return answer(0, '', 0) end
    local limits, next_window = limits_at(a, how), string.gmatch(windows, '%d+')
    find_counters(limits, key_name, key, owner_name, owner)
    for i = 1, #limits do
      local limit, list, at, window = limits[i], lists[i], positions[i], tonumber(next_window())
      local holder, is_known = key, knows_key
      if limit.is_of_owner then holder, is_known = owner, knows_owner end
      if is_known then
        if list[at + 1] == window then
          list[at + 2] = max(0, list[at + 2] - unused * limit.cost)
        elseif list[at + 1] == window + 1 then
          list[at + 3] = max(0, list[at + 3] - unused * limit.cost)
        end
        mark(holder, list)
        local out = now < ends + GRACE and find_out(limit, holder, limit.is_sliding and -1 or window)
        if out and (limit.is_sliding or holder.leases[out - 1] == window) then
          holder.leases[out], holder.leases_changed = max(0, holder.leases[out] - (used + unused) * limit.cost), true
        end
      end
    end
    answer(1, '', 0)
  end

  local function lease(k, a, how)
    if how % 2 == 1 then give_back(k, a, how) else grant(k, a, how) end
  end

  -- The fields l and m.
  local function pack_list(list, in_use)
    local head, units, before, former = {}, {}, {}, {}
    for i = 1, in_use do
      head[2 * i - 1], head[2 * i], units[i], before[i] = unpack(list, 4 * i - 3, 4 * i)
    end
    for i = 4 * in_use + 1, #list do former[i - 4 * in_use] = list[i] end
    local format = string.rep(USED, in_use)
    return struct.pack('<B' .. string.rep(HEAD, in_use), in_use, unpack(head)) .. struct.pack('<' .. format, unpack(units)),
      struct.pack('<' .. format, unpack(before)) .. struct.pack('<' .. string.rep(FORMER, #former / 4), unpack(former))
  end

  -- Write what was counted in a hash.
  local function write(name, holder)
    local values, n, hour = {}, 0, holder.hour
    if holder.is_new then values[1], values[2], n = 'g', holder.generation, 2 end
    if ttls[name] and holder.owner_name then
      values[n + 1], values[n + 2], n = 'o', holder.owner_name, n + 2
      -- The generation of the owner lives at least as long as that of its keys.
      refresh(holder.owner_name, 0)
    end
    if holder.hour_turned then
      values[n + 1], values[n + 2], values[n + 3], values[n + 4], n = 'h', hour[2], 'p', hour[4], n + 4
    end
    if holder.hour_changed then values[n + 1], values[n + 2], n = 'n', hour[3], n + 2 end
    if holder.list_changed then
      local list, more = pack_list(holder.counters, holder.in_use)
      values[n + 1], values[n + 2], values[n + 3], values[n + 4], n = 'l', list, 'm', more, n + 4
    end
    for field, number in pairs(holder.usage) do values[n + 1], values[n + 2], n = field, number, n + 2 end
    if holder.begins_usage and not call('HGET', name, 'ub') then values[n + 1], values[n + 2], n = 'ub', ARGV[2], n + 2 end
    if holder.leases_changed then
      values[n + 1], values[n + 2], values[n + 3], values[n + 4], n =
        'x', string.format('%.0f', holder.lease_ends), 'e', cmsgpack.pack(holder.leases), n + 4
    end
    if n > 0 then call('HSET', name, unpack(values)) end
  end

  -- Write what was counted, in one write per hash; HSET first, which is what a server whose memory is full refuses.
  local function finish()
    for name, holder in pairs(holders) do write(name, holder) end
    -- Never less than before: a hash may have counters with longer windows than those of this batch.
    for name, ttl in pairs(ttls) do call('EXPIRE', name, max(ttl, call('TTL', name))) end
  end

  return question, lease, finish
end
