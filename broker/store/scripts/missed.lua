-- What one participant may have missed: the newest incidents that they are in, without those in which
-- nothing can be new to them. One read: after the loss of an MQTT broker every device asks at once.
-- KEYS: involved. ARGV: the keys' prefix, the user, then in ms: since when, and before when an alert
-- without a word of its device is told again; how many incidents at most, how many group events.
-- Answers {{version, incident, person, alert, delivered, group events}…}; group events only of those
-- in which something is new.
local prefix, user, since, before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local involved = redis.call('ZRANGE', KEYS[1], -tonumber(ARGV[5]), -1, 'WITHSCORES')
local found = {}
for index = 1, #involved, 2 do
  local name, alerted = involved[index], tonumber(involved[index + 1])
  local version, incident, told =
    unpack(redis.call('HMGET', prefix .. 'incident:' .. name, 'v', 'incident', 'told'))
  if incident then
    local is_new = alerted >= since or tonumber(told or 0) >= since
    local alert = (is_new or alerted < before) and redis.call('HGET', prefix .. 'alerts:' .. name, user)
    local delivered = alert and redis.call('HEXISTS', prefix .. 'delivered:' .. name, user) or 0
    if is_new or (alert and delivered == 0) then
      found[#found + 1] = {
        version,
        incident,
        redis.call('HGET', prefix .. 'people:' .. name, user),
        alert,
        delivered,
        is_new and redis.call('LRANGE', prefix .. 'group:' .. name, -tonumber(ARGV[6]), -1) or {},
      }
    end
  end
end
return found
