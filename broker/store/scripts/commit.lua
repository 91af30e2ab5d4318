-- One optimistic transaction: if every guard holds, carry out every call; else change nothing.
-- ARGV: number of guards, then each as kind, key, …; number of calls and of references; each reference
-- as a call and which word, counted from the first of what follows, its result is put in the place of;
-- each call as its length and its words. A negative length is a call for each key of the list that
-- follows it, the key coming second. Answers {1, results…} or {0, guard}.
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

local count, references = tonumber(take()), tonumber(take())
local waiting = {} -- the words that stand for each call's result
for _ = 1, references do
  local call, word = tonumber(take()), tonumber(take())
  waiting[call] = waiting[call] or {}
  table.insert(waiting[call], word)
end

local results, before = { 1 }, at
for call = 1, count do
  local length, result = tonumber(take()), true
  if length > 0 then
    result = redis.call(unpack(ARGV, at + 1, at + length))
  else
    local list = take()
    length = -length
    for key in string.gmatch(list, '%S+') do
      ARGV[at + 2] = key
      redis.call(unpack(ARGV, at + 1, at + length))
    end
  end
  at = at + length
  results[call + 1] = result
  if waiting[call] then
    for _, word in ipairs(waiting[call]) do
      ARGV[before + word] = result
    end
  end
end
return results
