-- Returns the usage of API keys that take.lua has counted.
--
-- KEYS  hashes of the keys
-- ARGV  [1] hours since 1970: what was counted before is deleted if all hours of a key are read
--       [2] units besides requests, separated by spaces
--       then per key: the hour to read, or '' for all hours
-- Gives per key a list: the name of its memory, then fields and numbers. Empty if nothing was counted.
local MAX_FIELDS = 1000
local call, forget_before, reply = redis.call, tonumber(ARGV[1]), {}

local function read_hour(name, hour)
  local fields = {'ub', 'u' .. hour}
  for unit in string.gmatch(ARGV[2], '%S+') do fields[#fields + 1] = 'u' .. hour .. ':' .. unit end
  local values, found = call('HMGET', name, unpack(fields)), {}
  if not values[1] then return found end
  found[1] = values[1]
  for i = 2, #fields do
    if values[i] then found[#found + 1], found[#found + 2] = fields[i], values[i] end
  end
  return found
end

-- Call a command for some fields at a time: Lua passes a few thousand arguments at most.
local function in_parts(command, name, fields, take)
  for first = 1, #fields, MAX_FIELDS do
    local result = call(command, name, unpack(fields, first, math.min(first + MAX_FIELDS - 1, #fields)))
    if take then take(first, result) end
  end
end

local function read_all(name)
  local source, found, fields, over = call('HGET', name, 'ub'), {}, {}, {}
  if not source then return found end
  found[1] = source
  for _, field in ipairs(call('HKEYS', name)) do
    local hour = tonumber(string.match(field, '^u(%d+)'))
    if hour then
      fields[#fields + 1] = field
      if hour < forget_before then over[#over + 1] = field end
    end
  end
  if #fields == 0 then return found end
  in_parts('HMGET', name, fields, function(first, values)
    for i = 1, #values do
      local at = 2 * (first + i - 1)
      found[at], found[at + 1] = fields[first + i - 1], values[i]
    end
  end)
  in_parts('HDEL', name, over)
  return found
end

for i = 1, #KEYS do
  local hour = ARGV[i + 2]
  reply[i] = hour == '' and read_all(KEYS[i]) or read_hour(KEYS[i], hour)
end
return reply
