-- The account of a session, claimed atomically.
-- KEYS: binding, counter of all turns, counter of this group's turns.
-- ARGV: seconds, n, n accounts for a new claim (the group), the accounts that may stay.
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
local turn = 1
if n > 1 then
  -- A new group begins where the count of all stands: groups that come and go are not each to
  -- begin with their first account.
  local all = redis.call('INCR', KEYS[2])
  redis.call('SET', KEYS[3], all - 1, 'NX')
  turn = redis.call('INCR', KEYS[3])
  redis.call('EXPIRE', KEYS[3], 86400)
end
local account = ARGV[3 + (turn - 1) % n]
redis.call('SET', KEYS[1], account, 'EX', ARGV[1])
return account
