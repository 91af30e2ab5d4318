-- What a report's decision rests on, in one read.
-- KEYS: the report's receipt, the open incidents of its index cell. ARGV: the incidents' key prefix,
-- the kind that may merge, latitude, longitude and half the box around them, in degrees. Answers
-- {receipt fields, marker, {version, incident}…} with the incidents of that kind in the box.
local lat, lon, lat_span, lon_span = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local receipt = redis.call('HGETALL', KEYS[1])
local open = redis.call('HGETALL', KEYS[2])
local marker, found = '', {}
for index = 1, #open, 2 do
  local id, entry = open[index], open[index + 1]
  if id == '#' then
    marker = entry
  elseif string.sub(entry, 1, #ARGV[2] + 1) == ARGV[2] .. ' ' then
    local its_lat, its_lon = string.match(entry, '^%S+ (%S+) (%S+)')
    if math.abs(its_lat - lat) <= lat_span and math.abs(its_lon - lon) <= lon_span then
      local incident = redis.call('HMGET', ARGV[1] .. id, 'v', 'incident')
      if incident[2] then
        found[#found + 1] = incident
      end
    end
  end
end
return { receipt, marker, found }
