-- Delete the users of one hash whose time, word ARGV[1], cannot be read or is not after ARGV[2] (ms).
-- In a script, because a user may come back between the check and the deletion.
local stale = 0
local people = redis.call('HGETALL', KEYS[1])
for index = 1, #people, 2 do
  local words = {}
  for word in string.gmatch(people[index + 1], '%S+') do
    words[#words + 1] = word
  end
  local at = tonumber(words[tonumber(ARGV[1])])
  if not at or at <= tonumber(ARGV[2]) then -- an unreadable entry is no place
    redis.call('HDEL', KEYS[1], people[index])
    stale = stale + 1
  end
end
return stale
