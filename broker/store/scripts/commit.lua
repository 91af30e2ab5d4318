-- One optimistic transaction: if every guard holds, carry out every call; else change nothing.
-- ARGV: number of guards, then each as kind, key, …; number of calls, then each as its length and
-- its words. A word "\0N" stands for the result of call N. A negative length is a call for each key
-- of the list that follows it, the key coming second. Answers {1, results…} or {0, guard}.
-- The guard `clear` has a key of open incidents, lat, lon, metres: none of them is so near.
local function metres_between(lat, lon, place) -- haversine, as broker.core.grid.distance_m
  local there_lat, there_lon = string.match(place, '^(%S+) (%S+)$')
  local phi, there_phi = math.rad(lat), math.rad(there_lat)
  local half_chord = math.sin((there_phi - phi) / 2) ^ 2
    + math.cos(phi) * math.cos(there_phi) * math.sin(math.rad(there_lon - lon) / 2) ^ 2
  return 2 * 6371007.180918475 * math.asin(math.min(1, math.sqrt(half_chord)))
end

local function is_clear(key, lat, lon, metres)
  local near = redis.call('HGETALL', key)
  for index = 1, #near, 2 do
    if near[index] ~= '#' and metres_between(lat, lon, near[index + 1]) <= metres then
      return false
    end
  end
  return true
end

local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end

for guard = 1, tonumber(take()) do
  local kind, key = take(), take()
  local holds
  if kind == 'absent' then
    holds = redis.call('EXISTS', key) == 0
  elseif kind == 'present' then
    holds = redis.call('EXISTS', key) == 1
  elseif kind == 'field' then
    holds = (redis.call('HGET', key, take()) or '') == take()
  elseif kind == 'clear' then
    holds = is_clear(key, tonumber(take()), tonumber(take()), tonumber(take()))
  else -- score
    holds = (redis.call('ZSCORE', key, take()) or '') == take()
  end
  if not holds then
    return { 0, guard }
  end
end

local results = { 1 }
for _ = 1, tonumber(take()) do
  local length = tonumber(take())
  local list = length < 0 and take()
  local words = {}
  for index = 1, math.abs(length) do
    local word = take()
    if string.byte(word, 1) == 0 then
      word = results[tonumber(string.sub(word, 2)) + 1]
    end
    words[index] = word
  end
  if list then
    for key in string.gmatch(list, '%S+') do
      words[2] = key
      redis.call(unpack(words))
    end
    results[#results + 1] = true
  else
    results[#results + 1] = redis.call(unpack(words))
  end
end
return results
