-- All users in these index cells. KEYS: the cells' hashes. Answers {n, {user, place…}…}: for each
-- cell that is not empty, its number in KEYS and its hash.
local found = {}
for index, key in ipairs(KEYS) do
  local people = redis.call('HGETALL', key)
  if #people > 0 then
    found[#found + 1] = index
    found[#found + 1] = people
  end
end
return found
