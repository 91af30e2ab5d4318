-- Claim recipients of an incident: each may be alerted once, whoever asks and however often.
-- KEYS: people, alerts, unconfirmed, history, open incidents. ARGV: member to file, alert to file,
-- incident, now (ms), prefix of the users' incidents, their lifetime (s), when somebody has to look
-- whether they were sent (ms), the history's note ({count} for how many), then users. Answers {user,
-- alert…} for those who are to be sent to now: newly claimed, or claimed before for the same reason
-- and not yet recorded as sent.
local member, alert, incident, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local cause = string.match(alert, '^c %S+ (%S+)')
local claimed, new = {}, 0
if not redis.call('ZSCORE', KEYS[5], incident) then
  return claimed -- it has closed since it was read: nobody is called to what is over
end
for index = 9, #ARGV do
  local user = ARGV[index]
  if redis.call('HSETNX', KEYS[1], user, member) == 1 then
    redis.call('HSET', KEYS[2], user, alert)
    redis.call('ZADD', ARGV[5] .. user, now, incident)
    redis.call('EXPIRE', ARGV[5] .. user, ARGV[6])
    claimed[#claimed + 1] = user
    claimed[#claimed + 1] = alert
    new = new + 1
  else
    local filed = redis.call('HGET', KEYS[2], user)
    -- Claimed for another reason, it is in another event's hands, which is not done before it is sent.
    if filed and string.match(filed, '^c %S+ (%S+)') == cause then
      claimed[#claimed + 1] = user
      claimed[#claimed + 1] = filed
    end
  end
end
if new > 0 then
  redis.call('ZADD', KEYS[3], 'LT', ARGV[7], incident)
  redis.call('RPUSH', KEYS[4], (string.gsub(ARGV[8], '{count}', new)))
end
return claimed
