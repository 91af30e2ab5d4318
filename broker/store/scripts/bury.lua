-- Keep a dead letter, or forget some. KEYS: letters, their times, counts. ARGV: at most so many,
-- so many bytes, none older (ms); the letter's id (empty: none), its time (ms), the letter; then ids
-- to forget. What is over is dropped, the oldest first, and counted. Answers how many of the ids
-- were there.
local most, most_bytes, oldest, id = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local function forget(letter)
  local size = redis.call('HSTRLEN', KEYS[1], letter)
  if size == 0 then
    return 0
  end
  redis.call('HDEL', KEYS[1], letter)
  redis.call('ZREM', KEYS[2], letter)
  redis.call('HINCRBY', KEYS[3], 'bytes', -size)
  return 1
end

local forgotten = 0
for index = 7, #ARGV do
  forgotten = forgotten + forget(ARGV[index])
end
if id ~= '' then
  forget(id)
  redis.call('HSET', KEYS[1], id, ARGV[6])
  redis.call('ZADD', KEYS[2], ARGV[5], id)
  redis.call('HINCRBY', KEYS[3], 'bytes', #ARGV[6])
end
while true do
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  local bytes = tonumber(redis.call('HGET', KEYS[3], 'bytes') or 0)
  if not first[1] or (redis.call('ZCARD', KEYS[2]) <= most and bytes <= most_bytes
      and tonumber(first[2]) >= oldest) then
    return forgotten
  end
  forget(first[1])
  redis.call('HINCRBY', KEYS[3], 'dropped', 1)
end
