-- One session of a client: admitted within limits, kept alive, ended, revoked, bound to an account.
-- KEYS: its lease, its binding, the counter of all turns, the counter of this group's turns, and the
--   scopes it counts in: sorted sets of the names of living sessions by when they end.
-- ARGV: verb, now in seconds ("" for this server's clock), name, and for
--   admit:  seconds it may be idle, seconds it may live, since when it lives ("" if nobody knows),
--           the most sessions of each scope (-1: any number), and what `bind` takes
--           returns "in", since, seconds left, 1 if it is new, account or "", 1 if that was claimed
--             or "full", seconds until there is room if all stay idle, the scope that is full longest
--             or "revoked", seconds
--   bind:   seconds of a binding ("" if none is wanted), the account it is to be moved from ("" to
--           keep it), n, n accounts for a new claim (the group), the accounts that may stay
--           returns account or "", 1 if it was claimed now
--   end:    unless another process has found it open meanwhile
--   revoke: until when it is refused
local verb, now, name = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end

local function bind(first)
  if ARGV[first] == '' then
    return '', 0
  end
  local from, n = ARGV[first + 1], tonumber(ARGV[first + 2])
  local bound = redis.call('GET', KEYS[2])
  if bound and bound ~= from then
    for i = first + 3 + n, #ARGV do
      if ARGV[i] == bound then
        redis.call('EXPIRE', KEYS[2], ARGV[first])
        return bound, 0
      end
    end
  end
  local turn = 1
  if n > 1 then
    -- A new group begins where the count of all stands: groups that come and go are not each to
    -- begin with their first account.
    local all = redis.call('INCR', KEYS[3])
    redis.call('SET', KEYS[4], all - 1, 'NX')
    turn = redis.call('INCR', KEYS[4])
    redis.call('EXPIRE', KEYS[4], 86400)
  end
  local account = ARGV[first + 3 + (turn - 1) % n]
  redis.call('SET', KEYS[2], account, 'EX', ARGV[first])
  return account, 1
end

if verb == 'bind' then
  return {bind(4)}
end

local lease = redis.call('HMGET', KEYS[1], 'since', 'until', 'banned', 'scopes', 'is_shared')
local since, ends, banned = tonumber(lease[1]), tonumber(lease[2]) or 0, tonumber(lease[3]) or 0

-- Whatever is kept goes by itself: by its own time, never by being forgotten.
local function keep(seconds, ...)
  for _, key in ipairs({...}) do
    redis.call('EXPIRE', key, math.ceil(seconds) + 1)
  end
end

local function uncount()
  for scope in string.gmatch(lease[4] or '', '%S+') do
    redis.call('ZREM', scope, name)
  end
end

local function leave()
  uncount()
  redis.call('HDEL', KEYS[1], 'since', 'until', 'scopes', 'is_shared')
end

if verb == 'end' then
  if lease[5] then
    return {'shared'}
  end
  leave()
  return {'ended'}
end

if verb == 'revoke' then
  leave()
  banned = math.max(banned, tonumber(ARGV[4]))
  if banned > now then
    redis.call('HSET', KEYS[1], 'banned', banned)
    keep(banned - now, KEYS[1])
  end
  return {'revoked', tostring(banned - now)}
end

if banned > now then
  return {'revoked', tostring(banned - now)}
end
local idle, longest, known = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local is_new = ends <= now
if is_new then
  since = known or now
  local wait, where = -1, 0
  for i = 5, #KEYS do
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
    local most, count = tonumber(ARGV[i + 2]), redis.call('ZCARD', KEYS[i])
    -- What is known to live already, only not here, goes on whatever else there is.
    if not known and most >= 0 and count >= most then
      -- There may be more than the most: it was lowered, or some were known to live.
      local last = redis.call('ZRANGE', KEYS[i], count - most, count - most, 'WITHSCORES')
      local seconds = (tonumber(last[2]) or now + idle) - now
      if seconds > wait then
        wait, where = seconds, i - 4
      end
    end
  end
  if where > 0 then
    return {'full', string.format('%.6f', wait), where}
  end
end
ends = string.format('%.6f', math.min(now + idle, since + longest))
local left = tonumber(ends) - now
if left > 0 then
  local scopes = table.concat(KEYS, ' ', 5)
  if is_new then
    leave()
  elseif lease[4] ~= scopes then
    uncount()
  end
  for i = 5, #KEYS do
    redis.call('ZADD', KEYS[i], ends, name)
    keep(idle, KEYS[i])
  end
  redis.call('HSET', KEYS[1], 'since', string.format('%.6f', since), 'until', ends,
    'scopes', scopes)
  if not is_new and known ~= since then
    redis.call('HSET', KEYS[1], 'is_shared', 1)
  end
  keep(left, KEYS[1])
end
local account, is_claimed = bind(#KEYS + 3)
return {'in', string.format('%.6f', since), string.format('%.6f', left), is_new and 1 or 0, account,
  is_claimed}
