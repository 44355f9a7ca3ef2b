-- Replaces the generation of an API key or of an owner, so that no row that was read before is considered current.
--
-- KEYS  [1] hash of the API key or owner
-- ARGV  [1] the new generation   [2] seconds for which the hash is kept at least (its counters may need more)
redis.call('HSET', KEYS[1], 'g', ARGV[1])
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 1
