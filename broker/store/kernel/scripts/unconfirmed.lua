-- Check an incident's alerts that no device has confirmed: those too late expire, those to send again are
-- returned to one caller.
-- KEYS: alerts, delivered, unconfirmed, open-incidents, history. ARGV: incident, then in ms: now,
-- lifetime of an alert, when what was claimed is sent again, first and last wait of what was
-- refused; sent from when on is in doubt (in the future: nothing is), how long what was sent again is
-- not, and how often at most it is sent; the history's note. Answers {{user, alert…}, expired}.
local incident, now, lifetime, sending = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first, last = tonumber(ARGV[5]), tonumber(ARGV[6])
local doubt, settled, most = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local open = redis.call('ZSCORE', KEYS[4], incident)
local again, expired, due = {}, 0, nil

local function retry_at(state, claimed, at, tries)
  if state == 'c' then
    return at + sending
  elseif state == 'r' then
    return at + math.min(last, first * 2 ^ (tries - 1))
  elseif claimed >= doubt and tries < most then
    return tries < 2 and at or at + settled
  end
  return math.huge
end

local delivered = {}
for _, user in ipairs(redis.call('HKEYS', KEYS[2])) do
  delivered[user] = true
end

local rows = redis.call('HGETALL', KEYS[1])
for index = 1, #rows, 2 do
  local user, filed = rows[index], rows[index + 1]
  local state, head, since, moment, tail = string.match(filed, '^(%a) (%d+ %S+) (%d+) (%d+) (.+)$')
  if state and state ~= 'x' and not delivered[user] then
    local claimed, at, tries = tonumber(since), tonumber(moment), tonumber(string.match(tail, '^%d+'))
    local function file(as)
      redis.call('HSET', KEYS[1], user, table.concat({ as, head, since, ARGV[2], tail }, ' '))
    end
    local ends = claimed + lifetime
    if not open or ends <= now then
      file('x')
      expired = expired + 1
    else
      if retry_at(state, claimed, at, tries) <= now then
        again[#again + 1] = user
        again[#again + 1] = filed
        file(state)
        at = now
      end
      if state == 's' then
        due = math.min(due or ends, ends)
      else
        due = math.min(due or ends, ends, retry_at(state, claimed, at, tries))
      end
    end
  end
end

if due then
  redis.call('ZADD', KEYS[3], due, incident)
else
  redis.call('ZREM', KEYS[3], incident)
end
if expired > 0 then
  redis.call('RPUSH', KEYS[5], (string.gsub(ARGV[10], '{count}', expired)))
end
return { again, expired }
