-- Reads or replaces the verification ticket of a secret. Either way it is kept for the whole time again.
--
-- KEYS  [1] the ticket
-- ARGV  [1] seconds for which it is kept   [2] the new ticket, or '' to read
-- Returns the ticket, or '' if it does not exist
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[1])
  return ARGV[2]
end
local ticket = redis.call('GET', KEYS[1])
if not ticket then return '' end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return ticket
