-- Replaces the generation of an API key or of an owner, so that no row that was read before is considered current.
--
-- KEYS  [1] hash of the API key or owner
-- ARGV  [1] read by now.lua   [2] the new generation
--       [3] seconds for which the hash is kept at least (its counters may need more)
-- Returns the ms until the latest lease ends that this hash knows of, or 0. One more, since the lease was granted up to
-- one ms later than the whole milliseconds of this clock said.
redis.call('HSET', KEYS[1], 'g', ARGV[2])
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return math.max(0, (redis.call('HGET', KEYS[1], 'x') or 0) - now + 1)
