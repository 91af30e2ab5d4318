-- What a report's decision rests on, in one read.
-- KEYS: the report's receipt, the incidents that may take it. ARGV: the incidents' key prefix, the
-- report's lat and lon, and how near an incident must be (metres). Answers {receipt fields, marker,
-- {version, incident}…, names of those that another partition has…}.
local function metres_between(lat, lon, place) -- haversine, as broker.core.grid.distance_m
  local there_lat, there_lon = string.match(place, '^(%S+) (%S+)$')
  local phi, there_phi = math.rad(lat), math.rad(there_lat)
  local half_chord = math.sin((there_phi - phi) / 2) ^ 2
    + math.cos(phi) * math.cos(there_phi) * math.sin(math.rad(there_lon - lon) / 2) ^ 2
  return 2 * 6371007.180918475 * math.asin(math.min(1, math.sqrt(half_chord)))
end

local lat, lon, metres = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local receipt = redis.call('HGETALL', KEYS[1])
local marker, found, elsewhere = '', {}, {}
local near = redis.call('HGETALL', KEYS[2])
for index = 1, #near, 2 do
  if near[index] == '#' then
    marker = near[index + 1]
  elseif metres_between(lat, lon, near[index + 1]) <= metres then
    local row = redis.call('HMGET', ARGV[1] .. near[index], 'v', 'incident')
    if row[1] then
      found[#found + 1] = row
    else
      elsewhere[#elsewhere + 1] = near[index]
    end
  end
end
return { receipt, marker, found, elsewhere }
