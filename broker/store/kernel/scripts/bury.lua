-- Keep a dead letter, or forget some. KEYS: letters, their times, counts; the times of those of its
-- sender. ARGV: at most so many, so many bytes, none older (ms), so many of a sender; the letter's id
-- (empty: none), its time (ms), the letter; then ids to forget. What is over is dropped, the oldest
-- first, and counted: of the sender's own before anybody else's. Answers how many of the ids were
-- there, the letter's own included.
local most, most_bytes, oldest, most_of_one = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local id = ARGV[5]

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
for index = 8, #ARGV do
  forgotten = forgotten + forget(ARGV[index])
end
if id ~= '' then
  forgotten = forgotten + forget(id)
  redis.call('HSET', KEYS[1], id, ARGV[7])
  redis.call('ZADD', KEYS[2], ARGV[6], id)
  redis.call('HINCRBY', KEYS[3], 'bytes', #ARGV[7])
  redis.call('ZADD', KEYS[4], ARGV[6], id)
  redis.call('PEXPIREAT', KEYS[4], ARGV[6] - oldest + ARGV[6])
  if redis.call('ZCARD', KEYS[4]) > most_of_one then
    for _, one in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
      if redis.call('HEXISTS', KEYS[1], one) == 0 then -- replayed or dropped since
        redis.call('ZREM', KEYS[4], one)
      end
    end
  end
  while redis.call('ZCARD', KEYS[4]) > most_of_one do
    forget(redis.call('ZPOPMIN', KEYS[4])[1])
    redis.call('HINCRBY', KEYS[3], 'dropped', 1)
  end
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
