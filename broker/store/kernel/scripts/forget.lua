-- Delete a consumer that has nothing in hand: to delete one that has loses its entries. KEYS: the stream.
-- ARGV: the group, the consumer. Answers 1, or 0 if it has something in hand.
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 0
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
