-- What one participant may have missed, in short: of the newest incidents that they are in, those with
-- something new. After the loss of an MQTT broker every device asks at once.
-- KEYS: involved, open incidents. ARGV: the keys' prefix, the user; in ms, since when, and before when an
-- alert that the device has not confirmed is sent again; how many incidents at most.
-- Answers {{incident, told, alert, delivered, person, how many group events, whether open}…}.
local prefix, user, since, before = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
-- A conversation about an incident for the police alone names it in `of`: it is open as long.
local involved = redis.call('ZRANGE', KEYS[1], -tonumber(ARGV[5]), -1, 'WITHSCORES')
local found = {}
for index = 1, #involved, 2 do
  local name, alerted = involved[index], tonumber(involved[index + 1])
  local told = tonumber(redis.call('HGET', prefix .. 'incident:' .. name, 'told') or 0)
  local is_new = alerted >= since or told >= since
  local alert = (is_new or alerted < before) and redis.call('HGET', prefix .. 'alerts:' .. name, user)
  local delivered = alert and redis.call('HEXISTS', prefix .. 'delivered:' .. name, user) or 0
  local person = (is_new or (alert and delivered == 0))
    and redis.call('HGET', prefix .. 'people:' .. name, user)
  if person then
    local of = redis.call('HGET', prefix .. 'incident:' .. name, 'of') or name
    found[#found + 1] = {
      name, told, alert, delivered, person,
      redis.call('LLEN', prefix .. 'group:' .. name),
      redis.call('ZSCORE', KEYS[2], of) and 1 or 0,
    }
  end
end
return found
