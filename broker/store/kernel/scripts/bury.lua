-- Keep a dead letter, or delete some. KEYS: letters, their times, counts, the share of each, the bytes of
-- each share. ARGV: the most letters, the most bytes, the oldest time (ms before the earlier of its time
-- and the server's), the most of one share, the prefix of the keys of the shares' times; the letter's id
-- ('': none), its time (ms), the letter, its share; then ids to delete. What is too much is dropped, oldest
-- first, and counted: of the letter's share, then of the share with the most bytes. Answers how many of
-- the ids existed, the letter's own included.
local most, most_bytes, lifetime, most_of_one = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local prefix, id, at, share = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[9]

local function forget(letter)
  local size = redis.call('HSTRLEN', KEYS[1], letter)
  if size == 0 then
    return 0
  end
  redis.call('HDEL', KEYS[1], letter)
  redis.call('ZREM', KEYS[2], letter)
  redis.call('HINCRBY', KEYS[3], 'bytes', -size)
  local its = redis.call('HGET', KEYS[4], letter)
  if its then -- an older release recorded none
    redis.call('HDEL', KEYS[4], letter)
    redis.call('ZREM', prefix .. its, letter)
    if tonumber(redis.call('ZINCRBY', KEYS[5], -size, its)) <= 0 then
      redis.call('ZREM', KEYS[5], its)
    end
  end
  return 1
end

local function drop(letter)
  forget(letter)
  redis.call('HINCRBY', KEYS[3], 'dropped', 1)
end

local forgotten = 0
for index = 10, #ARGV do
  forgotten = forgotten + forget(ARGV[index])
end
local oldest = 0
if id ~= '' then
  local own = prefix .. share
  forgotten = forgotten + forget(id)
  redis.call('HSET', KEYS[1], id, ARGV[8])
  redis.call('ZADD', KEYS[2], ARGV[7], id)
  redis.call('HINCRBY', KEYS[3], 'bytes', #ARGV[8])
  redis.call('HSET', KEYS[4], id, share)
  redis.call('ZINCRBY', KEYS[5], #ARGV[8], share)
  redis.call('ZADD', own, ARGV[7], id)
  redis.call('PEXPIRE', own, ARGV[3])
  if redis.call('ZCARD', own) > most_of_one then
    for _, one in ipairs(redis.call('ZRANGE', own, 0, -1)) do
      if redis.call('HEXISTS', KEYS[1], one) == 0 then -- an older release forgot it
        redis.call('ZREM', own, one)
      end
    end
  end
  while redis.call('ZCARD', own) > most_of_one do
    drop(redis.call('ZPOPMIN', own)[1])
  end
  local time = redis.call('TIME')
  oldest = math.min(at, time[1] * 1000) - lifetime
end
while true do
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  local bytes = tonumber(redis.call('HGET', KEYS[3], 'bytes') or 0)
  if not first[1] then
    return forgotten
  elseif tonumber(first[2]) < oldest then
    drop(first[1])
  elseif redis.call('ZCARD', KEYS[2]) > most or bytes > most_bytes then
    local of_largest
    if redis.call('HEXISTS', KEYS[4], first[1]) == 1 then
      local largest = redis.call('ZRANGE', KEYS[5], 0, 0, 'REV')[1]
      of_largest = redis.call('ZRANGE', prefix .. largest, 0, 0)[1]
    end
    drop(of_largest or first[1])
  else
    return forgotten
  end
end
