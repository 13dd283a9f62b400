-- The account of a session, claimed atomically.
-- KEYS: binding, counter. ARGV: seconds, n, n accounts for a new claim, the accounts that may stay.
local n = tonumber(ARGV[2])
local bound = redis.call('GET', KEYS[1])
if bound then
  for i = 3 + n, #ARGV do
    if ARGV[i] == bound then
      redis.call('EXPIRE', KEYS[1], ARGV[1])
      return bound
    end
  end
end
local turn = redis.call('INCR', KEYS[2])
local account = ARGV[3 + (turn - 1) % n]
redis.call('SET', KEYS[1], account, 'EX', ARGV[1])
return account
