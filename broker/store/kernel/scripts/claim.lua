-- Claim recipients of an incident: each may be alerted once, however often this runs.
-- KEYS: people, alerts, unconfirmed, history, open incidents. ARGV: the member to file, the alert to file,
-- incident, now (ms), prefix of the users' incidents, their lifetime (s), when a worker must check whether
-- they were sent (ms), the history's note ({count} for how many), 'all' or '', the users in MessagePack.
-- Answers {user, alert…} for those to send to now: newly claimed, or claimed before for the same reason
-- and not yet recorded as sent. With 'all' also those who were claimed so and are no longer among the
-- users: they were near when they were claimed, and the worker that claimed them has died.
local member, alert, incident, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local cause = string.match(alert, '^c %S+ (%S+)')
local users = cmsgpack.unpack(ARGV[10])
local claimed, new = {}, 0
if not redis.call('ZSCORE', KEYS[5], incident) then
  return claimed -- it has closed since it was read: it alerts no one
end
if ARGV[9] == 'all' and redis.call('HLEN', KEYS[2]) > 0 then
  local asked, wave = {}, string.match(alert, '^c %S+ %S+ ')
  for _, user in ipairs(users) do
    asked[user] = true
  end
  local filed = redis.call('HGETALL', KEYS[2])
  for index = 1, #filed, 2 do
    if not asked[filed[index]] and string.sub(filed[index + 1], 1, #wave) == wave then
      claimed[#claimed + 1] = filed[index]
      claimed[#claimed + 1] = filed[index + 1]
    end
  end
end
local lifetime = tonumber(ARGV[6])
for first = 1, #users, 1000 do -- `unpack` has a limit
  local last = math.min(first + 999, #users)
  local known = redis.call('HMGET', KEYS[1], unpack(users, first, last))
  local people, alerts = {}, {}
  for index = first, last do
    local user = users[index]
    if not known[index - first + 1] then
      people[#people + 1], people[#people + 2] = user, member
      alerts[#alerts + 1], alerts[#alerts + 2] = user, alert
      local involved = ARGV[5] .. user
      redis.call('ZADD', involved, now, incident)
      if redis.call('TTL', involved) < lifetime - 86400 then -- a day more or less: a write saved
        redis.call('EXPIRE', involved, lifetime + 86400)
      end
      claimed[#claimed + 1] = user
      claimed[#claimed + 1] = alert
      new = new + 1
    else
      local filed = redis.call('HGET', KEYS[2], user)
      -- Claimed for another reason: the event that claimed it is not done before it is sent.
      if filed and string.match(filed, '^c %S+ (%S+)') == cause then
        claimed[#claimed + 1] = user
        claimed[#claimed + 1] = filed
      end
    end
  end
  if #people > 0 then
    redis.call('HSET', KEYS[1], unpack(people))
    redis.call('HSET', KEYS[2], unpack(alerts))
  end
end
if new > 0 then
  redis.call('ZADD', KEYS[3], 'LT', ARGV[7], incident)
  redis.call('RPUSH', KEYS[4], (string.gsub(ARGV[8], '{count}', new)))
end
return claimed
