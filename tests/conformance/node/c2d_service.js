'use strict';
// A back end by azure-iothub that sends messages to devices over AMQP and receives the feedback on them.
const { Message } = require('azure-iot-common');
const { Amqp, AmqpWs, Client } = require('azure-iothub');

const { converse, promise } = require('./conversation');

const SECONDS = 120;
const clients = {};
const inboxes = {};

async function connect({ connection, connection_string: text, websockets = false }) {
  const client = (clients[connection] = Client.fromConnectionString(text, websockets ? AmqpWs : Amqp));
  await promise(client, 'open');
}

/** Send a message; `fields` are members of the SDK's. */
async function send({ connection, device_id: deviceId, body, fields = {}, properties = {} }) {
  const message = Object.assign(new Message(body), fields);
  for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
  const { constructor } = await promise(clients[connection], 'send', deviceId, message);
  return constructor.name;
}

/** From now on batches of feedback are received, and settled as `settle` says: complete, abandon or reject. */
async function listen({ connection, settle = 'complete' }) {
  const receiver = await promise(clients[connection], 'getFeedbackReceiver');
  const inbox = (inboxes[connection] = []);
  receiver.on('message', (batch) => {
    inbox.push(...JSON.parse(batch.data.toString()));
    receiver[settle](batch, () => {});
  });
}

/** The feedback on these messages, from what was received. */
async function feedback({ connection, message_ids: ids, seconds = SECONDS }) {
  const inbox = inboxes[connection];
  const found = () => inbox.filter(({ originalMessageId: id }) => ids.includes(id));
  for (let waited = 0; new Set(found().map(({ originalMessageId: id }) => id)).size < ids.length; waited += 0.05) {
    if (waited > seconds) throw new Error(`${JSON.stringify(inbox)} came`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return found();
}

/** All records that were received. */
async function received({ connection }) {
  return inboxes[connection];
}

/** Open a receiver of file notifications. */
async function listenForFiles({ connection }) {
  const { constructor } = await promise(clients[connection], 'getFileNotificationReceiver');
  return constructor.name;
}

async function close({ connection }) {
  const client = clients[connection];
  delete clients[connection];
  await promise(client, 'close');
}

converse({ connect, send, listen, feedback, received, listenForFiles, close });
