// A client that a test drives: commands come as lines of JSON, and so do answers and messages.
// The first line has the options of `mqtt.connect`. Started in examples/node, which has mqtt.js.
const path = require('node:path');
const readline = require('node:readline');
const mqtt = require(require.resolve('mqtt', { paths: [path.resolve('.')] }));

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const bytes = (hex) => Buffer.from(hex, 'hex');
let client;

const commands = {
  connect({ url, will, ...options }) {
    if (will) will.payload = bytes(will.payload);
    client = mqtt.connect(url, { ...options, will, reconnectPeriod: 0 });
    client.on('connect', ({ sessionPresent }) => say({ done: sessionPresent }));
    client.on('error', (error) => say({ error: String(error) }));
    client.on('message', (topic, payload, { qos, retain }) =>
      say({ topic, payload: payload.toString('hex'), qos, retain }));
  },
  subscribe({ topic, qos }) {
    client.subscribe(topic, { qos }, (error, granted) => say({ done: error ? String(error) : granted[0].qos }));
  },
  publish({ topic, payload, qos, retain }) {
    client.publish(topic, bytes(payload), { qos, retain }, (error) => say({ done: error ? String(error) : null }));
  },
  leave() {
    client.end(false, () => process.exit(0));
  },
};

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { command, ...options } = JSON.parse(line);
  commands[command](options);
});
