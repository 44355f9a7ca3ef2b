-- Gives an API key another generation, so that no row read before this moment is taken for current.
--
-- KEYS  [1] hash of the API key
-- ARGV  [1] the new generation   [2] seconds for which a key's hash is kept
redis.call('HSET', KEYS[1], 'g', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
