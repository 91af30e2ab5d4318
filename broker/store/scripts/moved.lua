-- In which partition users are, and were: for the users whom this partition looks after.
-- KEYS: any key of the partition. ARGV: key prefix, presence lifetime (ms), then four words a user:
-- name, bucket, partition ('' for where they were), at (ms). Filed under home:{bucket} as
-- "partition at". Answers for each the partition before, -1 for none, -2 if a later update has come.
local prefix, lifetime = ARGV[1], tonumber(ARGV[2])
local before = {}
for first = 3, #ARGV, 4 do
  local user, key = ARGV[first], prefix .. 'home:' .. ARGV[first + 1]
  local partition, at = ARGV[first + 2], tonumber(ARGV[first + 3])
  local filed = redis.call('HGET', key, user)
  local old, old_at = '-1', 0
  if filed then
    old, old_at = string.match(filed, '^(%S+) (%d+)$')
  end
  if at < tonumber(old_at) then
    before[#before + 1] = -2
  else
    before[#before + 1] = tonumber(old)
    redis.call('HSET', key, user, (partition == '' and old or partition) .. ' ' .. ARGV[first + 3])
    if redis.call('PTTL', key) < lifetime then
      redis.call('PEXPIRE', key, math.floor(lifetime * 1.1))
    end
  end
end
return before
