-- What one name has in flight and had in the last minute, exactly over all processes.
-- KEYS: the ids in flight by the time at which they expire; the counts of two minutes.
-- ARGV: verb, now in seconds ("" for this server's clock), lease in seconds, and for
--   admit: id, most in flight, requests and tokens a minute ("" for no limit)
--          returns "in", "full" or "rate", and then elapsed, requests before and now, tokens
--          before and now
--   renew: ids
--   leave: id ("" if it held no place), tokens used
local verb, now, lease = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1000000
end

local function keep(first, last)
  for i = first, last do
    redis.call('ZADD', KEYS[1], now + lease, ARGV[i])
  end
  redis.call('EXPIRE', KEYS[1], lease)
end

if verb == 'renew' then
  keep(4, #ARGV)
  return {'in'}
end

local minute, elapsed = math.floor(now / 60), now % 60
local kept = redis.call('HMGET', KEYS[2], 'minute', 'r', 't', 'rb', 'tb')
for i = 1, 5 do
  kept[i] = tonumber(kept[i]) or 0
end
local requests, tokens, requests_before, tokens_before = kept[2], kept[3], kept[4], kept[5]
if minute == kept[1] + 1 then
  requests, tokens, requests_before, tokens_before = 0, 0, requests, tokens
elseif minute > kept[1] then
  requests, tokens, requests_before, tokens_before = 0, 0, 0, 0
else
  minute = kept[1]
end

local function count(more_requests, more_tokens)
  redis.call('HSET', KEYS[2], 'minute', minute, 'r', requests + more_requests,
    't', tokens + more_tokens, 'rb', requests_before, 'tb', tokens_before)
  redis.call('EXPIRE', KEYS[2], 180)
end

if verb == 'leave' then
  redis.call('ZREM', KEYS[1], ARGV[4])
  if tonumber(ARGV[5]) > 0 then
    count(0, ARGV[5])
  end
  return {'in'}
end

local most, rpm, tpm = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local left = 1 - elapsed / 60
local verdict = 'in'
if most then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
  if redis.call('ZCARD', KEYS[1]) >= most then
    verdict = 'full'
  end
end
if (rpm and requests_before * left + requests + 1 > rpm)
  or (tpm and tokens_before * left + tokens + 1 > tpm) then
  verdict = 'rate'
end
if verdict == 'in' then
  if most then
    keep(4, 4)
  end
  if rpm then
    count(1, 0)
  end
end
return {verdict, tostring(elapsed), tostring(requests_before), tostring(requests),
  tostring(tokens_before), tostring(tokens)}
