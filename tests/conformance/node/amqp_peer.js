'use strict';
// An AMQP client by rhea that is no SDK: it sends messages for devices as no SDK would, and tells what became of each.
const fs = require('fs');
const rhea = require('rhea');

const { converse } = require('./conversation');

const SECONDS = 30;

/** A value of a certain AMQP type: `{"type": "double", "value": 21.5}`; anything else is itself. */
function typed(value) {
  if (value === null || typeof value !== 'object') return value;
  if (value.type === 'uuid') return rhea.string_to_uuid(value.value);
  if (value.type === 'binary') return Buffer.from(value.value, 'base64');
  return rhea.types[`wrap_${value.type}`](value.value);
}

function mapped(fields) {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, typed(value)]));
}

/** Resolves with what the event carries; rejects when the other one comes first. */
function next(emitter, event, failure) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event} in ${SECONDS} s`)), SECONDS * 1000);
    emitter.once(event, (context) => {
      clearTimeout(timer);
      resolve(context);
    });
    if (failure) emitter.once(failure, () => reject(new Error(`${failure} instead of ${event}`)));
  });
}

async function authorize(connection, audience, token) {
  const receiver = connection.open_receiver('$cbs');
  await next(receiver, 'receiver_open');
  const sender = connection.open_sender('$cbs');
  await next(sender, 'sendable');
  const reply = next(receiver, 'message');
  sender.send({
    message_id: 'put-1',
    application_properties: { operation: 'put-token', type: 'servicebus.windows.net:sastoken', name: audience },
    body: token,
  });
  const status = (await reply).message.application_properties['status-code'];
  if (status !== 200) throw new Error(`put-token was answered with ${status}`);
}

/** Send all messages without waiting for any; what became of each, in their order. */
async function exchange({ host, audience, token, target = '/messages/devicebound', messages }) {
  const container = rhea.create_container();
  const connection = container.connect({
    host,
    port: 5671,
    transport: 'tls',
    ca: fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS),
    reconnect: false,
  });
  try {
    await next(connection, 'connection_open', 'disconnected');
    await authorize(connection, audience, token);
    const sender = connection.open_sender({ target: { address: target } });
    const outcomes = [];
    const byId = {};
    const done = new Promise((resolve) => {
      for (const state of ['accepted', 'rejected', 'released', 'modified']) {
        sender.on(state, ({ delivery }) => {
          const { error } = delivery.remote_state || {};
          const info = error && error.info;
          byId[delivery.id] = {
            state,
            settled: delivery.remote_settled,
            condition: error && error.condition,
            description: error && error.description,
            tracking: info && info['com.microsoft:tracking-id'],
          };
          if (Object.keys(byId).length === messages.length) resolve();
        });
      }
    });
    const refused = new Promise((resolve) => sender.once('sender_error', resolve));
    const opened = next(sender, 'sendable');
    const context = await Promise.race([opened, refused]);
    if (sender.error) return { refused: context.sender.error.condition };
    const ids = messages.map(({ body, application_properties: application = {}, ...properties }) => {
      const message = { ...mapped(properties), application_properties: mapped(application) };
      if (body !== undefined) message.body = typed(body);
      return sender.send(message).id;
    });
    await done;
    outcomes.push(...ids.map((id) => byId[id]));
    return { outcomes };
  } finally {
    connection.close();
  }
}

converse({ exchange });
