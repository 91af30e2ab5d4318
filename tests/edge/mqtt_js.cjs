// Clients that a test drives: commands come as lines of JSON, and so do answers and messages, each
// with the name of its client. Started in examples/node, which has mqtt.js.
const path = require('node:path');
const readline = require('node:readline');
const mqtt = require(require.resolve('mqtt', { paths: [path.resolve('.')] }));

const bytes = (hex) => Buffer.from(hex, 'hex');
const clients = {};

const commands = {
  connect(say, name, { url, will, ...options }) {
    if (will) will.payload = bytes(will.payload);
    const client = mqtt.connect(url, { ...options, will, reconnectPeriod: 0 });
    client.on('connect', ({ sessionPresent }) => say({ done: sessionPresent }));
    client.on('error', (error) => say({ done: String(error) }));
    client.on('message', (topic, payload, { qos, retain }) =>
      say({ topic, payload: payload.toString('hex'), qos, retain }));
    clients[name] = client;
  },
  subscribe(say, name, { topic, qos }) {
    clients[name].subscribe(topic, { qos }, (error, granted) =>
      say({ done: error ? String(error) : granted[0].qos }));
  },
  publish(say, name, { topic, payload, qos, retain }) {
    clients[name].publish(topic, bytes(payload), { qos, retain }, (error) =>
      say({ done: error ? String(error) : null }));
  },
  leave(say, name) {
    clients[name].end(false, () => say({ done: null }));
  },
  break_off(say, name) {
    clients[name].stream.destroy();
    say({ done: null });
  },
};

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { command, name, ...options } = JSON.parse(line);
  const say = (what) => process.stdout.write(`${JSON.stringify({ name, ...what })}\n`);
  commands[command](say, name, options);
});
