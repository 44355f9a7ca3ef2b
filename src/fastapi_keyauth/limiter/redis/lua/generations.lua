-- Returns the generations of API keys and of their owners, as take.lua compares them: for requests that are running.
--
-- KEYS  per question: [1] hash of the API key, [2] hash of its owner; take.lua describes them
-- ARGV  [1] a new generation, for keys and owners without one   [2] r if this server signs generations
--       [3] seconds for which a hash is kept at least
local call, fresh, keep = redis.call, ARGV[1], tonumber(ARGV[3])
local signature = ''
if ARGV[2] == 'r' then signature = '@' .. string.match(call('INFO', 'replication'), 'master_replid:(%x+)') end

-- The hashes of keys that nobody used for a while have expired, although requests of theirs are still running.
local function create(name)
  call('HSET', name, 'g', fresh)
  if call('TTL', name) < keep then call('EXPIRE', name, keep) end
  return fresh
end

local owners, reply = {}, {}
for i = 1, #KEYS, 2 do
  local key_name, owner_name = KEYS[i], KEYS[i + 1]
  local owner = owners[owner_name] or call('HGET', owner_name, 'g') or create(owner_name)
  owners[owner_name] = owner
  local key = call('HGET', key_name, 'g')
  if not key then
    key = create(key_name)
    call('HSET', key_name, 'o', owner_name)
    if call('TTL', owner_name) < keep then call('EXPIRE', owner_name, keep) end
  end
  reply[#reply + 1] = key .. '.' .. owner .. signature
end
-- A write in any case, so that a server that may not write (demoted, or cut off from its replicas) proves nothing.
call('HSET', KEYS[1], 'o', KEYS[2])
return reply
