-- One optimistic transaction: if every guard holds, carry out every call; else change nothing.
-- ARGV: in MessagePack {guards, calls, references}: each guard as {kind, key, …}; each call as its
-- words, or as {keys, words} to repeat with each key as the second word; each reference as a call and a
-- later one, whose last word becomes the result. Answers {1, results…} or {0, guard}.
-- The command UNFILE is one of this script. The others are of Redis.
-- The guard `clear` has a key of open incidents, lat, lon, metres: none of them is that near.
-- As in neighbourhood.lua: a script cannot include another.
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

local function is_clear(key, lat, lon, metres)
  local near = redis.call('HGETALL', key)
  for index = 1, #near, 2 do
    if near[index] ~= '#' and is_within(metres, lat, lon, near[index + 1]) then
      return false
    end
  end
  return true
end

local function unfile(key, field)
  redis.call('HDEL', key, field)
  if redis.call('HLEN', key) == 1 and redis.call('HEXISTS', key, '#') == 1 then
    redis.call('DEL', key) -- its marker alone is left
  end
end

local guards, calls, references = unpack(cmsgpack.unpack(ARGV[1]))

for number, guard in ipairs(guards) do
  local kind, key, first, second, third = unpack(guard)
  local holds
  if kind == 'absent' then
    holds = redis.call('EXISTS', key) == 0
  elseif kind == 'present' then
    holds = redis.call('EXISTS', key) == 1
  elseif kind == 'field' then
    holds = (redis.call('HGET', key, first) or '') == second
  elseif kind == 'clear' then
    holds = is_clear(key, first, second, third)
  else -- score
    holds = (redis.call('ZSCORE', key, first) or '') == second
  end
  if not holds then
    return { 0, number }
  end
end

local waiting = {}
for _, reference in ipairs(references) do
  local earlier, later = unpack(reference)
  waiting[earlier] = waiting[earlier] or {}
  table.insert(waiting[earlier], calls[later])
end

local results = { 1 }
for number, call in ipairs(calls) do
  local result = true
  if type(call[1]) == 'table' then
    local keys, words = unpack(call)
    for _, key in ipairs(keys) do
      words[2] = key
      if words[1] == 'UNFILE' then
        unfile(key, words[3])
      else
        redis.call(unpack(words))
      end
    end
  else
    result = redis.call(unpack(call))
  end
  results[number + 1] = result
  for _, later in ipairs(waiting[number] or {}) do
    later[#later] = result
  end
end
return results
