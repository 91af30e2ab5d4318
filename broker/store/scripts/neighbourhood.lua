-- What a report's decision rests on, in one read.
-- KEYS: the report's receipt, the incidents that may take it. ARGV: the incidents' key prefix.
-- Answers {receipt fields, marker, {version, incident}…}.
local receipt = redis.call('HGETALL', KEYS[1])
local marker, found = '', {}
local near = redis.call('HGETALL', KEYS[2])
for index = 1, #near, 2 do
  if near[index] == '#' then
    marker = near[index + 1]
  else
    found[#found + 1] = redis.call('HMGET', ARGV[1] .. near[index], 'v', 'incident')
  end
end
return { receipt, marker, found }
