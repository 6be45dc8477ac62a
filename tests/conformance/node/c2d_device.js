'use strict';
// A device by azure-iot-device that receives messages from the cloud.
const { Client } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const { converse, promise } = require('./conversation');

const SECONDS = 90;
const connections = {};
const inboxes = {};
const held = {};

/** Connect, with a listener: that makes the SDK subscribe. Done when it has: what was sent before is not for it.
 * Each message is completed as it comes, unless all are kept for ``settle``. */
async function connect({ connection, connection_string: text, websockets = false, amqp = false, keep = false }) {
  const [Plain, InWebSocket] = amqp ? [Amqp, AmqpWs] : [Mqtt, MqttWs];
  const client = (connections[connection] = Client.fromConnectionString(text, websockets ? InWebSocket : Plain));
  const inbox = (inboxes[connection] = []);
  const kept = (held[connection] = []);
  client.on('message', (message) => {
    const properties = {};
    for (let i = 0; i < message.properties.count(); i += 1) {
      const { key, value } = message.properties.getItem(i);
      properties[key] = value;
    }
    const { messageId, correlationId, userId, contentType, contentEncoding, expiryTimeUtc: expiry } = message;
    const { 'iothub-ack': ack = message.ack } = properties; // over MQTT this SDK takes it for an application property
    delete properties['iothub-ack'];
    const body = message.getData().toString('utf8');
    inbox.push({ body, messageId, correlationId, userId, contentType, contentEncoding, ack, expiry, properties });
    if (keep) kept.push(message);
    else client.complete(message, () => {});
  });
  await promise(client, 'open');
  await promise(client, '_enableC2D'); // the listener did the same, and does not tell when it is done
}

/** The next messages, as the SDK shows them. */
async function receive({ connection, count }) {
  const inbox = inboxes[connection];
  for (let waited = 0; inbox.length < count; waited += 0.05) {
    if (waited > SECONDS) throw new Error(`${inbox.length} of ${count} messages came`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return inbox.splice(0, count);
}

/** ``complete``, ``reject`` or ``abandon`` the oldest message that was kept. */
async function settle({ connection, how }) {
  await promise(connections[connection], how, held[connection].shift());
}

async function close({ connection }) {
  const client = connections[connection];
  delete connections[connection];
  await promise(client, 'close');
}

converse({ connect, receive, settle, close });
