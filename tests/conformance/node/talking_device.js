'use strict';
// Devices and modules by azure-iot-device that do all that there is: twin, methods, messages from the cloud.
const { Client, ModuleClient } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const { converse, promise } = require('./conversation');

const SECONDS = 90;
const ANSWERS = { fail: [500, { error: 'broken' }], nothing: [204, null] };
const METHODS = ['echo', 'fail', 'nothing', 'silent'];
const clients = {};

async function until(condition, what) {
  for (let waited = 0; !condition(); waited += 0.02) {
    if (waited > SECONDS) throw new Error(`${what} did not come`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Open a connection, with handlers for all that a hub sends. */
async function connect({ connection, connection_string: text, module = false, amqp = false, websockets = false }) {
  const Kind = module ? ModuleClient : Client;
  const [Plain, InWebSocket] = amqp ? [Amqp, AmqpWs] : [Mqtt, MqttWs];
  const client = Kind.fromConnectionString(text, websockets ? InWebSocket : Plain);
  const state = (clients[connection] = { client, desired: [], method: [], message: [] });
  await promise(client, 'open');
  state.twin = await promise(client, 'getTwin');
  state.twin.on('properties.desired', (delta) => {
    state.desired.push(JSON.parse(JSON.stringify(delta)));
  });
  const listen = module ? 'onMethod' : 'onDeviceMethod';
  for (const name of METHODS)
    client[listen](name, (request, response) => {
      state.method.push({ name, payload: request.payload });
      if (name === 'silent') return;
      const [status, payload] = ANSWERS[name] || [200, { echo: request.payload }];
      response.send(status, payload, () => {});
    });
  if (module) return;
  client.on('message', (message) => {
    state.message.push(message.getData().toString('utf8'));
    client.complete(message, () => {});
  });
  await promise(client, '_enableC2D'); // the listener did the same, and does not tell when it is done
}

/** The next of ``desired``, ``method`` or ``message``. */
async function heard({ connection, kind, count = 1 }) {
  const inbox = clients[connection][kind];
  await until(() => inbox.length >= count, kind);
  return inbox.splice(0, count);
}

/** Those that wait to be asked for, and go on waiting. */
async function waiting({ connection, kind }) {
  return clients[connection][kind];
}

/** The twin, read anew. */
async function twin({ connection }) {
  const { properties } = await promise(clients[connection].client, 'getTwin');
  const { update, ...reported } = properties.reported;
  return { desired: properties.desired, reported };
}

async function report({ connection, patch }) {
  await promise(clients[connection].twin.properties.reported, 'update', patch);
}

async function close({ connection }) {
  const { client } = clients[connection];
  delete clients[connection];
  await promise(client, 'close');
}

converse({ connect, heard, waiting, twin, report, close });
