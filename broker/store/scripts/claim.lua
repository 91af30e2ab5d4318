-- Claim recipients of an incident: each may be alerted once, whoever asks and however often.
-- KEYS: people, alerts, open incidents. ARGV: member to file, alert to file, incident, now (ms), prefix of the
-- users' incidents, their lifetime (s), then users. Answers {user, alert…} for those who are to be
-- sent to now: newly claimed, or claimed before for the same reason and not yet recorded as sent.
local member, alert, incident, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local cause = string.match(alert, '^(.*) %d+$')
local claimed = {}
if not redis.call('ZSCORE', KEYS[3], incident) then
  return claimed -- it has closed since it was read: nobody is called to what is over
end
for index = 7, #ARGV do
  local user = ARGV[index]
  if redis.call('HSETNX', KEYS[1], user, member) == 1 then
    redis.call('HSET', KEYS[2], user, alert)
    redis.call('ZADD', ARGV[5] .. user, now, incident)
    redis.call('EXPIRE', ARGV[5] .. user, ARGV[6])
    claimed[#claimed + 1] = user
    claimed[#claimed + 1] = alert
  else
    local filed = redis.call('HGET', KEYS[2], user)
    -- Claimed for another reason, it is in another event's hands, which is not done before it is sent.
    if filed and string.match(filed, '^(c .*) %d+$') == cause then
      claimed[#claimed + 1] = user
      claimed[#claimed + 1] = filed
    end
  end
end
return claimed
