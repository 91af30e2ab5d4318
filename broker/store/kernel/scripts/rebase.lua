-- Move everything that is due at a time along with a clock that has jumped, once.
-- KEYS[1] is the record of the last jump, the others are sorted sets by Unix ms. ARGV: until when
-- (ms, of the time before) the time before counted; by how much it has moved (ms); how long to keep
-- the record (ms). Each worker of a host notices the same jump, at nearly the same moment.
local last = redis.call('GET', KEYS[1])
if last and math.abs(tonumber(ARGV[1]) - tonumber(string.match(last, '^%d+'))) < 60000 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
for index = 2, #KEYS do
  for _, member in ipairs(redis.call('ZRANGE', KEYS[index], 0, -1)) do
    redis.call('ZINCRBY', KEYS[index], ARGV[2], member)
  end
end
return 1
