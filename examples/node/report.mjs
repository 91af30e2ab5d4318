// A participant in Node.js: reports what it is told, and waits for the receipt.
//
//   npm install
//   NABIJ_PASSWORD=… node report.mjs mqtt://127.0.0.1:1883 ann fight 51.0543 3.7217 "Two men fight"
//
// The receipt is printed as one line of JSON. Ends with 0 if the report was accepted, 1 if it was
// refused, 3 if no receipt came: then it is NOT confirmed, and the user is told to call 112. A real
// device keeps the report on disk and sends it until its receipt (docs/protocol.md).
import { randomBytes } from 'node:crypto';
import { connectAsync } from 'mqtt';

const WITHIN_MS = 10_000; // then its user is told that it is not confirmed
const AGAIN_MS = 1_000; // without a receipt it is sent again, under the same id

/** A UUID of version 7 (RFC 9562, 5.7) as 16 bytes: milliseconds since 1970, then random bits. */
function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return bytes;
}

/** The 16 bytes as text: 8-4-4-4-12 hexadecimal digits. */
function textOf(id) {
  return id.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

// What this client knows of two enumerations of the contract, which may get more values: each field
// says in docs/contract how a later value is read. Unknown fields are left as they are.
const OUTCOMES = new Set(['accepted', 'rejected']);
const CODES = new Set([
  'unknown_category', 'too_old', 'expired', 'too_far_ahead', 'null_island', 'id_reused',
]);

/** A receipt with its outcome and code as this client knows them; what they were is kept. */
function read(receipt) {
  const { outcome, code } = receipt;
  return {
    ...receipt,
    outcome: OUTCOMES.has(outcome) ? outcome : 'rejected',
    ...(code && !CODES.has(code) ? { code: 'other', code_as_sent: code } : {}),
  };
}

const [url, user, category, lat, lon, text = ''] = process.argv.slice(2);
if (!lon) {
  console.error('usage: NABIJ_PASSWORD=… node report.mjs URL USER CATEGORY LAT LON [TEXT]');
  process.exit(2);
}

const id = uuid7();
const receiptTopic = `nabij/v1/u/${user}/down/receipt`;
const payload = JSON.stringify({
  id: textOf(id),
  category,
  location: { lat: Number(lat), lon: Number(lon), accuracy_m: 20 },
  seen_at: new Date().toISOString(),
  text,
});

const client = await connectAsync(url, {
  protocolVersion: 5,
  username: user,
  password: process.env.NABIJ_PASSWORD,
  clientId: `${user}-node-${id.toString('hex').slice(-12)}`,
});
const receipt = await new Promise((resolve) => {
  client.on('message', (_topic, message, packet) => {
    if (!packet.properties?.correlationData?.equals(id)) return;
    try {
      resolve(read(JSON.parse(message.toString())));
    } catch (error) {
      console.error(`A receipt that cannot be read: ${error.message}`); // it is asked for again
    }
  });
  const send = () =>
    client.publish(`nabij/v1/u/${user}/up/report`, payload, {
      qos: 1,
      properties: { responseTopic: receiptTopic, correlationData: id },
    });
  client.subscribe(receiptTopic, { qos: 1 }, send);
  const again = setInterval(send, AGAIN_MS);
  setTimeout(() => resolve(null), WITHIN_MS).unref();
  again.unref();
});
await client.endAsync();
if (receipt === null) {
  console.error('Not confirmed. Call 112 if it is urgent.');
  process.exit(3);
}
console.log(JSON.stringify(receipt));
process.exit(receipt.outcome === 'accepted' ? 0 : 1);
