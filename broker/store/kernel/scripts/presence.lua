-- A batch of presence updates, and which open incidents each came into.
-- KEYS[1]: any key of the partition. ARGV: key prefix, now (ms), presence lifetime (ms), then in
-- MessagePack nine words an update: user, bucket, index cell ('' to withdraw, '>' if the new place is
-- in another partition), child ('-' without a place), availability, at (ms), at as the device said, and
-- latitude and longitude of the place (degrees; 0 without one).
-- Filed under at:{cell} as "child availability at", under where:{bucket} as the same after the cell
-- and before when it came, and what the last withdrawal said ('-': none is known).
-- Answers {update, incident, entry, 'new' or old "cell child"} per hit.
-- A key may outlive its newest entry by a fifth: each user checks its end once in a tenth of the
-- lifetime, and extends it when less than a tenth more than the lifetime is left.
local prefix, now, lifetime = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local hits = {}
local EARTH_RADIUS_M = 6371007 -- as in grid.py

local function keep(key)
  if redis.call('PTTL', key) < lifetime * 1.1 then
    redis.call('PEXPIRE', key, math.floor(lifetime * 1.2))
  end
end

local function tenth(moment)
  return math.floor(moment * 10 / lifetime)
end

-- The cell of resolution 8 that holds one of 9: that resolution, and 7 for the digit of the ninth.
local function district(cell)
  local digit = bit.bor(tonumber(string.sub(cell, 10, 10), 16), 1)
  return '88' .. string.sub(cell, 3, 9) .. string.format('%x', digit) .. 'fffff'
end

local around = {} -- what is open in each district: nothing changes while this runs

local function open_in(here)
  if not around[here] then
    local rows, found = redis.call('HGETALL', prefix .. 'open:' .. here), {}
    for index = 1, #rows, 2 do
      local id, entry = rows[index], rows[index + 1]
      local lat, lon, radius, since = string.match(entry, '^(%S+) (%S+) (%S+) (%d+)$')
      lat, lon, radius = tonumber(lat), tonumber(lon), tonumber(radius)
      if not (lat and lon and radius) then
        found[#found + 1] = { id = id, entry = entry } -- the reader says that it cannot be read
      elseif radius > 0 then
        found[#found + 1] = {
          id = id, entry = entry, since = tonumber(since),
          lat = math.rad(lat), lon = math.rad(lon), radius = radius
        }
      end
    end
    around[here] = found
  end
  return around[here]
end

-- Whether a point (radians) may be within the radius, by half the chord between them on a sphere of
-- radius 1; a metre too many, as the reader measures.
local function may_reach(open, lat, lon)
  local half, north = (open.radius + 1) / (2 * EARTH_RADIUS_M), math.sin((open.lat - lat) / 2)
  if math.abs(north) > half then
    return false
  end
  local east = math.sin((open.lon - lon) / 2)
  return north * north + math.cos(lat) * math.cos(open.lat) * east * east <= half * half
end

-- Without `lat` and `lon`, the place is only known by its cell.
local function look(update, user, cell, since, place, lat, lon)
  for _, open in ipairs(open_in(district(cell))) do
    local may_be_near = not open.since -- it cannot be read
      or (open.since >= since and (not lat or may_reach(open, lat, lon)))
    if may_be_near
      and redis.call('HEXISTS', prefix .. 'people:' .. open.id, user) == 0 then
      hits[#hits + 1] = { update, open.id, open.entry, place }
    end
  end
end

local function text(moment)
  return string.format('%.0f', moment)
end

local updates = cmsgpack.unpack(ARGV[4])
for first = 1, #updates, 9 do
  local update = (first - 1) / 9
  local user, bucket, cell, child, how, at, said, lat, lon = unpack(updates, first, first + 8)
  local where = prefix .. 'where:' .. bucket
  local filed = redis.call('HGET', where, user)
  local old_cell, old_child, old_how, old_at, old_received
  local withdrew, counts = '-', true
  if filed then
    old_cell, old_child, old_how, old_at, old_received, withdrew =
      string.match(filed, '^(%S+) (%S+) (%S+) (%d+) (%d+) ?(%S*)$')
    old_at, old_received = tonumber(old_at), tonumber(old_received)
    if cell == '' then
      counts = withdrew ~= text(said) -- otherwise a repeat: what came since stays
    elseif string.find(old_how, '^[mw]') then
      counts = said > old_at -- a place from before the withdrawal, or a repeat, stays forgotten
    elseif old_cell == '-' and cell ~= '>' then
      counts = at > old_at -- the place that was crossed from stays forgotten
    else
      counts = at >= old_at
    end
  end
  if counts then
    if cell == '' then
      at, withdrew = math.max(at, old_at or 0), text(said)
    end
    local entry = child .. ' ' .. how .. ' ' .. text(at)
    local came = ' ' .. ARGV[2] .. ' ' .. (withdrew == '' and '-' or withdrew)
    local looked = filed and tenth(old_received) == tenth(now)
    local had_place = filed and old_cell ~= '-' and old_at > now - lifetime
    if filed and old_cell ~= '-' and old_cell ~= cell then
      redis.call('HDEL', prefix .. 'at:' .. old_cell, user)
    end
    -- An incident that was committed while the old place was in effect, and whose recipients are read
    -- only after this update: they were within the radius at commit all the same.
    local function look_back()
      look(update, user, old_cell, old_received - 10000, old_cell .. ' ' .. old_child)
    end
    if cell == '' or cell == '>' then
      redis.call('HSET', where, user, '- ' .. entry .. came)
      if cell == '>' and had_place then
        look_back()
      end
    else
      local is_new = redis.call('HSET', prefix .. 'at:' .. cell, user, entry)
      if is_new == 1 or not looked then
        keep(prefix .. 'at:' .. cell)
      end
      redis.call('HSET', where, user, cell .. ' ' .. entry .. came)
      if not had_place or at == old_at or old_cell ~= cell or old_child ~= child then
        look(update, user, cell, 0, 'new', math.rad(lat), math.rad(lon))
        if had_place then
          look_back()
        end
      end
    end
    if not looked then
      keep(where)
    end
  end
end
return hits
