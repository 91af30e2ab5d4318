-- In which partition users are, and were: for the users who hash to this partition.
-- KEYS: any key of the partition. ARGV: key prefix, presence lifetime (ms), then five words a user:
-- name, bucket, partition ('' to withdraw), at (ms), and at as the device said. Filed under
-- home:{bucket} as "partition at", '-' if withdrawn else '+', and what the last withdrawal said.
-- Answers for each the partition before, -1 for none, -2 if the update does not count (presence.lua),
-- -3 for a repeat. Of places of the same time that of the highest partition counts.
local prefix, lifetime = ARGV[1], tonumber(ARGV[2])
local before = {}
for first = 3, #ARGV, 5 do
  local user, key = ARGV[first], prefix .. 'home:' .. ARGV[first + 1]
  local partition, at, said = ARGV[first + 2], tonumber(ARGV[first + 3]), ARGV[first + 4]
  local filed = redis.call('HGET', key, user)
  local old, old_at, state, withdrew, counts = '-1', 0, '+', '-', true
  if filed then
    old, old_at, state, withdrew = string.match(filed, '^(%S+) (%d+) ?(%S*) ?(%S*)$')
    old_at = tonumber(old_at)
    if partition == '' then
      counts = withdrew ~= said
    elseif state == '-' then
      counts = tonumber(said) > old_at
    else
      counts = at > old_at or (at == old_at and tonumber(partition) >= tonumber(old))
    end
  end
  if not counts then
    before[#before + 1] = -2
  else
    local repeats = state == '+' and partition == old and at == old_at
    before[#before + 1] = repeats and -3 or tonumber(old)
    state = '+'
    if partition == '' then
      partition, at, state, withdrew = old, math.max(at, old_at), '-', said
    end
    redis.call('HSET', key, user, table.concat({ partition, string.format('%.0f', at), state, withdrew == '' and '-' or withdrew }, ' '))
    if redis.call('PTTL', key) < lifetime then
      redis.call('PEXPIRE', key, math.floor(lifetime * 1.1))
    end
  end
end
return before
