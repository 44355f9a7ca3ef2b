-- Answers a batch of questions: is the address blocked, have the key or its owner changed, is there room for the cost in
-- every limit? One call compares and counts in one step, so N workers never admit more than a limit.
-- limiter/counters.py does the same arithmetic.
--
-- KEYS  per question: [1] hash of the address (b blocked until, ms), [2] hash of the API key, [3] hash of its owner,
--       and [4], for a charge that has a name, a string with the windows that it was charged to. The last one, if this
--       call may be sent twice, is a string with the answer to it.
--       Fields of a key or owner: g generation; o name of the owner's hash (of a key).
--       Usage of a key, which only grows and has no limits: u<hour> requests that were charged in an hour, u<hour>:<unit>
--       other units; ub a name for this memory, since another one may begin again at 0. usage.lua reads it.
--       Of a key whose one limit is per hour of requests: h number of the window, n units in it, p units in the one before.
--       Of all others: l the number of counters (one byte), name and number of the window of each (HEAD), units of each
--       (USED); m units of each in the window before (USED), then counters of former limits (HEAD, USED, USED).
--       x latest end of a lease, in ms since 1970; e what is out on lease (MessagePack): a word that no other hash has,
--       ms since 1970 until which nothing more is leased; then of each counter its name, the window, and units
-- ARGV  [1] read by now.lua
--       [2] a new generation, for keys and owners without one
--       [3] r if this server signs generations; m if this call may be sent twice; or rm
--       [4] seconds for which a hash is kept at least   [5] ms of the longest block
--       [6] number of arguments that follow about limits. Four describe all limits that a question is about:
--           - of each (LIMIT): name of its counter, limit, cost, kind (the sum of 1 sliding, 2 of the owner, 4 the one
--             limit of a key per hour of requests), ms of its window (0: a month)
--           - format of the third; '' if a limit slides
--           - ms since 1970 from which and until which the windows below are the present ones; number of limits of the key
--             and of the owner; format and beginning of l of the key, and of the owner; all limits; all costs
--           - usage: a number of requests, or names and numbers of several units
--       then per question: generation of the row; position of its limits in ARGV; a number, the sum of
--       the row (0: the asker has none, 1: remembered, 2: read for this request), 3 to charge, 6 to check for a block,
--       12 for a charge that has a name: then also ms for which it is kept; '' to charge it, or what was used of each
--       limit, to settle it; and the usage; 24 to charge one request to the only limit, of an hour, whose number replaces the
--       position.
--       Returns and grants of leases are questions, too, with 24 for such a limit and
--       49 to return a lease: what was answered to its grant, or the hour in which it was used, to count only that; limits;
--          number; requests that it admitted; and that it did not admit
--       48 to grant one: generation of the row; limits; number; requests; ms that it lasts at most
-- Gives per question five items: verdict (0 admitted, 1 limited, 2 blocked, 3 stale, 4 ask again when
--       units come back that are out on lease; the wait is then in ms), generation, hour, wait in whole
--       seconds, at least 1, and a list with three integers per limit: units left, seconds until the window ends or the
--       cost fits, end of the window in s since 1970; then the positions, from 0, of the limits without room.
--       A list with one integer per limit has the units left (if limited: before the cost, and below 0 for a debt). Then
--       the windows are those of the question, and the wait is replaced by s since 1970.
--       For a grant: requests (0: no lease), what to return it with, hour, wait, a list with three integers per limit and
--       the ms that it lasts.
--       If this call was carried out before, gives one item: what it gave then, without generations.
--
-- The questions here are those that charge fixed windows which have begun, and in which nothing stands out. All others go
-- to take_others.lua. This part has no functions: each is created again in each call, which takes as long as half a
-- command.

-- A server that takes over, and one that was restarted, has another replication id. So a generation that is signed
-- with it proves nothing once another server may have lost, or this one may have missed, a change.
local signature, record = '', nil
if ARGV[3] == 'm' or ARGV[3] == 'rm' then
  record = KEYS[#KEYS]
  local answered = redis.call('GET', record)
  if answered then
    answered = cmsgpack.unpack(answered)
    -- They prove nothing any more: a server that took over may have the answer, but not the latest changes.
    for i = 2, #answered, 5 do answered[i] = '' end
    return {answered}
  end
end
if ARGV[3] == 'r' or ARGV[3] == 'rm' then
  signature = '@' .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end

local LIMIT, HEAD, USED, GRACE = 'c8I4I4I1I6', 'c8i5', 'I4', 50
local KEYS, ARGV, call, floor, ceil = KEYS, ARGV, redis.call, math.floor, math.ceil
local longest_block, hour = tonumber(ARGV[5]), floor(now / 3600000)
local hour_ends_s = (hour + 1) * 3600
local now_s = floor(now / 1000)
local hour_left_s = hour_ends_s - now_s
-- Read once per batch, and written once:
-- hours: name of a key to {g, h, n, u<hour>}. n and u become numbers when units are added.
-- lists: name of a key or owner to {g, l, u<hour> of a key}. When units are needed, l becomes {beginning of l, units of
--   each limit, false}; the last item becomes the format of l when units are added. u becomes a number then.
-- A key is in one of them: its usage is counted in one place. false in either: take_others.lua has the hash.
-- owners: name of an owner without limits to g
-- blocks: name of an address to ms that it is still blocked
-- specs: position of limits in ARGV to the items of their third argument; false if take_others.lua must answer
-- leased: name of a key or owner without room to whether units may come back that are out on lease
-- unlimited: names of keys that were admitted without any limit or usage
local reply, size, hours, lists, owners, blocks, specs, leased, unlimited = {}, 0, {}, {}, {}, {}, {}, {}, nil
local k, a, last, answer_other, lease, finish = 1, 7 + ARGV[6], #ARGV, nil, nil, nil
local usage_field = 'u' .. hour

while a <= last do
  local how, name, owner_name = ARGV[a + 2], KEYS[k + 1], KEYS[k + 2]
  local has_address, is_hourly, verdict, generation, wait, states = false, false, nil, '', 0, nil
  repeat -- once; what is not plain breaks out, before anything has changed
    if how == '34' or how == '35' then
      has_address, is_hourly = true, true
    elseif how == '28' or how == '29' then
      is_hourly = true
    elseif how == '10' or how == '11' then
      has_address = true
    elseif how ~= '4' and how ~= '5' then
      break
    end
    if has_address then
      local address = KEYS[k]
      local blocked_ms = blocks[address]
      if not blocked_ms then
        blocked_ms = (call('HGET', address, 'b') or 0) - now
        if blocked_ms > longest_block then break end
        blocks[address] = blocked_ms
      end
      if blocked_ms > 0 then
        verdict, wait, states = 2, ceil(blocked_ms / 1000), {}
        break
      end
    end

    local limits, key, owner, owner_generation
    if is_hourly then
      key = hours[name]
      if key == nil then
        if lists[name] then break end
        key = call('HMGET', name, 'g', 'h', 'n', usage_field)
        hours[name] = key
      end
    else
      local spec = ARGV[a + 1]
      limits = specs[spec]
      if limits == nil then
        local format = ARGV[spec + 1]
        limits = format ~= '' and {struct.unpack(format, ARGV[spec + 2])}
        if limits then
          limits[0] = tonumber(ARGV[spec + 3])
          if not limits[0] or now < limits[1] or now >= limits[2] then limits = false end
        end
        specs[spec] = limits
      end
      if not limits then break end
      key = lists[name]
      if key == nil then
        if hours[name] then break end
        key = call('HMGET', name, 'g', 'l', usage_field)
        lists[name] = key
      end
    end
    if limits and limits[4] > 0 then
      owner = lists[owner_name]
      if owner == nil then
        owner = call('HMGET', owner_name, 'g', 'l')
        lists[owner_name] = owner
      end
      owner_generation = owner and owner[1]
    else
      owner_generation = owners[owner_name] or call('HGET', owner_name, 'g')
      owners[owner_name] = owner_generation
    end
    if not key or not key[1] or not owner_generation then break end
    generation = key[1] .. '.' .. owner_generation .. signature

    if generation ~= ARGV[a] and (how == '34' or how == '28' or how == '10' or how == '4') then
      verdict, wait, states = 3, 1, {}
    elseif is_hourly then
      if not key[2] or key[2] - hour ~= 0 then break end
      local free = ARGV[a + 1] - key[3]
      wait = hour_left_s
      if free < 1 then
        if leased[name] == nil then leased[name] = (call('HGET', name, 'x') or 0) + GRACE > now end
        if leased[name] then break end
        verdict, states = 1, {free < 0 and 0 or free, wait, hour_ends_s, 0}
      elseif not key[4] then
        break
      else
        key[3], key[4] = key[3] + 1, key[4] + 1
        verdict, states = 0, {free - 1, wait, hour_ends_s}
      end
    else
      local of_key, of_owner, usage, key_units, owner_units = limits[3], limits[4], limits[0], nil, nil
      if usage > 0 and not key[3] then break end
      if of_key > 0 then
        key_units = key[2]
        if not key_units then break end
        if type(key_units) == 'string' then
          if #key_units ~= #limits[6] + 4 * of_key then break end
          key_units = {struct.unpack(limits[5], key_units)}
          key_units[of_key + 2] = false
          key[2] = key_units
        end
        if key_units[1] ~= limits[6] then break end
      end
      if of_owner > 0 then
        owner_units = owner[2]
        if not owner_units then break end
        if type(owner_units) == 'string' then
          if #owner_units ~= #limits[8] + 4 * of_owner then break end
          owner_units = {struct.unpack(limits[7], owner_units)}
          owner_units[of_owner + 2] = false
          owner[2] = owner_units
        end
        if owner_units[1] ~= limits[8] then break end
      end
      local count = of_key + of_owner
      local costs_at = 8 + count
      verdict, wait, states = 0, now_s, {unpack(limits, 9, costs_at)}
      for i = 1, of_key do
        local used = key_units[i + 1] + limits[costs_at + i]
        local free = states[i] - used
        if free < 0 then verdict = 1 end
        key_units[i + 1], states[i] = used, free
      end
      for i = of_key + 1, count do
        local at = i - of_key + 1
        local used = owner_units[at] + limits[costs_at + i]
        local free = states[i] - used
        if free < 0 then verdict = 1 end
        owner_units[at], states[i] = used, free
      end
      if verdict == 1 then
        -- One has no room, so that none is charged.
        for i = 1, count do
          local cost, units, at = limits[costs_at + i], key_units, i + 1
          if i > of_key then units, at = owner_units, at - of_key end
          units[at], states[i] = units[at] - cost, states[i] + cost
        end
        if leased[name] == nil then leased[name] = (call('HGET', name, 'x') or 0) + GRACE > now end
        if leased[owner_name] == nil then
          leased[owner_name] = of_owner > 0 and (call('HGET', owner_name, 'x') or 0) + GRACE > now
        end
        if leased[name] or leased[owner_name] then
          verdict = nil
          break
        end
      else
        if key_units then key_units[of_key + 2] = limits[5] end
        if owner_units then owner_units[of_owner + 2] = limits[7] end
        if count == 0 then wait = hour_left_s end
        if usage > 0 then
          key[3] = key[3] + usage
        elseif count == 0 then
          unlimited = unlimited or {}
          unlimited[#unlimited + 1] = name
        end
      end
    end
  until true

  if verdict then
    reply[size + 1], reply[size + 2], reply[size + 3], reply[size + 4], reply[size + 5] =
      verdict, generation, hour, wait, states
    k, a = k + 3, a + 3
  else
    if not answer_other then
      answer_other, lease, finish =
        answer_others(LIMIT, HEAD, USED, GRACE, now, usage_field, signature, reply, hours, lists)
    end
    how = tonumber(how)
    if how >= 48 then
      lease(k, a, how)
      k, a = k + 3, a + 5
    elseif how % 24 >= 12 then
      answer_other(k, a, how, KEYS[k + 3], ARGV[a + 3], ARGV[a + 4], ARGV[a + 5])
      k, a = k + 4, a + 6
    else
      answer_other(k, a, how)
      k, a = k + 3, a + 3
    end
  end
  size = size + 5
end

-- HSET first, which is what a server whose memory is full refuses.
for name, key in pairs(hours) do
  if key and type(key[3]) == 'number' then call('HSET', name, 'n', key[3], usage_field, key[4]) end
end
for name, holder in pairs(lists) do
  local units, usage = holder and holder[2], holder and type(holder[3]) == 'number' and holder[3]
  local format = type(units) == 'table' and units[#units]
  if format and usage then
    call('HSET', name, 'l', struct.pack(format, unpack(units)), usage_field, usage)
  elseif format then
    call('HSET', name, 'l', struct.pack(format, unpack(units)))
  elseif usage then
    call('HSET', name, usage_field, usage)
  end
end
if finish then finish() end
if unlimited then
  -- A write in any case, so that a server that may not write (demoted, or cut off from its replicas) admits nothing.
  -- Never for less than before: a hash may have counters of former limits.
  for i = 1, #unlimited do call('EXPIRE', unlimited[i], math.max(ARGV[4], call('TTL', unlimited[i]))) end
end
-- For as long as the second try may come: redis_timeout_s is a minute at most.
if record then call('SET', record, cmsgpack.pack(reply), 'PX', 60000) end
return reply
