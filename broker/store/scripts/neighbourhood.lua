-- What a report's decision rests on, in one read.
-- KEYS: the report's receipt, the incidents that may take it. ARGV: the incidents' key prefix, the
-- report's lat and lon, and how near an incident must be (metres, by a flat earth: the caller allows
-- for its error). Answers {receipt fields, marker, {version, incident}…}.
local lat, lon, metres = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local receipt = redis.call('HGETALL', KEYS[1])
local marker, found = '', {}
local near = redis.call('HGETALL', KEYS[2])
for index = 1, #near, 2 do
  if near[index] == '#' then
    marker = near[index + 1]
  else
    local there_lat, there_lon = string.match(near[index + 1], '^(%S+) (%S+)$')
    local north = (there_lat - lat) * 111195
    local turn = math.abs(there_lon - lon)
    local east = math.min(turn, 360 - turn) * 111195 * math.cos(math.rad(lat))
    if north * north + east * east <= metres * metres then
      found[#found + 1] = redis.call('HMGET', ARGV[1] .. near[index], 'v', 'incident')
    end
  end
end
return { receipt, marker, found }
