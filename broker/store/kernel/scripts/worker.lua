-- Change the record of a worker's session if it is still as it was read, and note the time by this
-- server's clock. KEYS: workers, their beats. ARGV: name, the record as it was ('' whatever it was), the
-- beat as it was ('' whatever), the record as it shall be ('' none); name and record of another one that
-- must still be so ('' nobody). Answers 1, or 0 if something had changed.
local name, was, beat, shall, other = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if was ~= '' and redis.call('HGET', KEYS[1], name) ~= was then
  return 0
end
if beat ~= '' and redis.call('HGET', KEYS[2], name) ~= beat then
  return 0
end
if other ~= '' and redis.call('HGET', KEYS[1], other) ~= ARGV[6] then
  return 0
end
if shall == '' then
  redis.call('HDEL', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
  return 1
end
if shall ~= was then
  redis.call('HSET', KEYS[1], name, shall)
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], name, string.format('%d%03d', time[1], math.floor(time[2] / 1000)))
return 1
