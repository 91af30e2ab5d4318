-- Change the record of a worker's session if it is still as it was read, and write a heartbeat by this
-- server's clock. KEYS: workers, their beats. ARGV: name; the record as it was read ('': any); the beat as
-- it was read ('': any); the new record ('': delete it); name and record of another worker, which must
-- still be so ('': none). Answers 1, or 0 if something has changed.
local name, was, beat, new, other = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if was ~= '' and redis.call('HGET', KEYS[1], name) ~= was then
  return 0
end
if beat ~= '' and redis.call('HGET', KEYS[2], name) ~= beat then
  return 0
end
if other ~= '' and redis.call('HGET', KEYS[1], other) ~= ARGV[6] then
  return 0
end
if new == '' then
  redis.call('HDEL', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
  return 1
end
if new ~= was then
  redis.call('HSET', KEYS[1], name, new)
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], name, string.format('%d%03d', time[1], math.floor(time[2] / 1000)))
return 1
