'use strict';
// Devices by azure-iot-device over azure-iot-device-http: telemetry, batches, and messages from the cloud, which it polls.
const fs = require('fs');

const { Client, Message } = require('azure-iot-device');
const { Http } = require('azure-iot-device-http');

const { converse, promise } = require('./conversation');

const HOST = process.env.MUSTER_HOST;
const connections = {};
const messages = {};
const inboxes = {};

/** What a client's polls bring, in order, to whoever asks next. */
class Inbox {
  constructor(client) {
    this.arrived = [];
    this.waiting = [];
    client.on('message', (message) => {
      const waiter = this.waiting.shift();
      if (waiter) waiter.resolve(message);
      else this.arrived.push(message);
    });
    client.on('error', (error) => {
      for (const waiter of this.waiting.splice(0)) waiter.reject(error);
    });
  }

  next() {
    if (this.arrived.length) return Promise.resolve(this.arrived.shift());
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }
}

/** Open a client under a name, by a key or by the files of a certificate. */
async function connect({ connection, deviceId, symmetricKey, certificate, key }) {
  const place = `HostName=${HOST};DeviceId=${deviceId}`;
  const text = symmetricKey ? `${place};SharedAccessKey=${symmetricKey}` : `${place};x509=true`;
  const client = (connections[connection] = Client.fromConnectionString(text, Http));
  if (!symmetricKey) {
    await promise(client, 'setOptions', {
      cert: fs.readFileSync(certificate, 'ascii'),
      key: fs.readFileSync(key, 'ascii'),
      http: { receivePolicy: { interval: 1 } }, // without this the SDK takes the options and never calls back
    });
  }
  await promise(client, 'open');
}

function messageOf({ body, properties = {}, ...system }) {
  const message = Object.assign(new Message(body), system);
  for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
  return message;
}

async function send({ connection, message }) {
  const result = await promise(connections[connection], 'sendEvent', messageOf(message));
  return result.constructor.name;
}

async function sendBatch({ connection, batch }) {
  const result = await promise(connections[connection], 'sendEventBatch', batch.map(messageOf));
  return result.constructor.name;
}

/**
 * The next message that its polls, one each second from the first call on, bring; ``settle`` is given its lock token.
 * One listener stays: a slow poll may be under way when its caller goes, and what it brings is locked and must be kept.
 */
async function receive({ connection }) {
  inboxes[connection] ||= new Inbox(connections[connection]);
  const message = await inboxes[connection].next();
  messages[message.lockToken] = message;
  const properties = {};
  for (let i = 0; i < message.properties.count(); i += 1) {
    const { key, value } = message.properties.getItem(i);
    properties[key] = value;
  }
  const { messageId, correlationId, to, expiryTimeUtc, lockToken } = message;
  const body = message.getData().toString('utf8');
  return { body, messageId, correlationId, to, expiryTimeUtc, lockToken, properties };
}

/** In one of three ways: ``complete``, ``reject`` or ``abandon``. */
async function settle({ connection, lockToken, way }) {
  const result = await promise(connections[connection], way, messages[lockToken]);
  return result.constructor.name;
}

async function close({ connection }) {
  const client = connections[connection];
  delete connections[connection];
  delete inboxes[connection];
  await promise(client, 'close');
}

converse({ connect, send, sendBatch, receive, settle, close });
