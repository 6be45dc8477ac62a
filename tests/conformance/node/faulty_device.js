'use strict';
// A device by azure-iot-device over AMQP, which goes on sending while its connection and links are being broken.
const { Client, Message } = require('azure-iot-device');
const { NoRetry } = require('azure-iot-common');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');

const { converse } = require('./conversation');

const TRANSPORTS = { amqp: Amqp, 'amqp-ws': AmqpWs };
const devices = {};

async function connect({ name, connectionString, transport, retry = true }) {
  const client = Client.fromConnectionString(connectionString, TRANSPORTS[transport]);
  client.on('error', () => {});
  if (!retry) client.setRetryPolicy(new NoRetry());
  await client.open();
  devices[name] = client;
}

function message(body, properties = {}) {
  const sent = new Message(body);
  for (const [key, value] of Object.entries(properties)) sent.properties.add(key, value);
  return sent;
}

async function send({ name, body, properties }) {
  await devices[name].sendEvent(message(body, properties));
}

/** Until it was accepted once: the SDK forgets what it is asked to send while it is noticing that a line is down. */
async function insist({ name, body }) {
  for (;;) {
    const sent = devices[name].sendEvent(message(body)).then(
      () => true,
      () => false
    );
    const late = new Promise((resolve) => setTimeout(resolve, 3000, false));
    if (await Promise.race([sent, late])) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Listen for messages from the cloud; the SDK attaches that link then. */
async function listen({ name }) {
  devices[name].on('message', (message) => devices[name].complete(message, () => {}));
}

async function close({ name }) {
  await devices[name].close();
}

converse({ connect, send, insist, listen, close });
