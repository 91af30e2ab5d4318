-- Delete a consumer without pending entries: deleting one that has some would lose them. KEYS: the stream.
-- ARGV: the group, the consumer. Answers 1, or 0 if it has pending entries.
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
