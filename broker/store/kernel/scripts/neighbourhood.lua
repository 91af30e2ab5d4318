-- What the decision on a report depends on, in one read.
-- KEYS: the report's receipt, the incidents that may take it. ARGV: the incidents' key prefix, the
-- report's lat and lon, and how near an incident must be (metres). Answers {receipt fields, marker,
-- {version, incident}…, names of those that another partition has…}.
-- As in commit.lua: a script cannot include another.
local function is_within(metres, lat, lon, place) -- haversine, as broker.core.grid.distance_m
  local space = string.find(place, ' ', 1, true)
  local there_lat = tonumber(string.sub(place, 1, space - 1))
  if math.abs(there_lat - lat) * 111190 > metres then
    return false -- a degree of latitude is 111,194.9 m: most are told apart by that
  end
  local phi, there_phi = math.rad(lat), math.rad(there_lat)
  local across = math.rad(tonumber(string.sub(place, space + 1)) - lon)
  local half_chord = math.sin((there_phi - phi) / 2) ^ 2
    + math.cos(phi) * math.cos(there_phi) * math.sin(across / 2) ^ 2
  return 2 * 6371007.180918475 * math.asin(math.min(1, math.sqrt(half_chord))) <= metres
end

local lat, lon, metres = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local receipt = redis.call('HGETALL', KEYS[1])
local marker, found, elsewhere = '', {}, {}
local near = redis.call('HGETALL', KEYS[2])
for index = 1, #near, 2 do
  if near[index] == '#' then
    marker = near[index + 1]
  elseif is_within(metres, lat, lon, near[index + 1]) then
    local row = redis.call('HMGET', ARGV[1] .. near[index], 'v', 'incident')
    if row[1] then
      found[#found + 1] = row
    else
      elsewhere[#elsewhere + 1] = near[index]
    end
  end
end
return { receipt, marker, found, elsewhere }
