'use strict';
// An AMQP client by rhea that is no SDK: it sends messages for devices as no SDK would, and tells what became of each.
const fs = require('fs');
const rhea = require('rhea');

const { converse } = require('./conversation');

const SECONDS = 90;

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

function connect(host) {
  return rhea.create_container().connect({
    host,
    port: 5671,
    transport: 'tls',
    ca: fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS),
    reconnect: false,
  });
}

/** Send all messages without waiting for any; what became of each, in their order. */
async function exchange({ host, audience, token, target = '/messages/devicebound', messages }) {
  const connection = connect(host);
  try {
    await next(connection, 'connection_open', 'disconnected');
    await authorize(connection, audience, token);
    const sender = connection.open_sender({ target: { address: target } });
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
    await next(sender, 'sendable', 'sender_error');
    const ids = messages.map(({ body, application_properties: application = {}, ...properties }) => {
      const message = { ...mapped(properties), application_properties: mapped(application) };
      if (body !== undefined) message.body = typed(body);
      return sender.send(message).id;
    });
    await done;
    return ids.map((id) => byId[id]);
  } finally {
    connection.close();
  }
}

let flooding;
let accepted;

/** Send as many messages to each of these devices, as fast as there is credit, in the background. */
async function flood({ host, audience, token, devices, count }) {
  const connection = connect(host);
  await next(connection, 'connection_open', 'disconnected');
  await authorize(connection, audience, token);
  const sender = connection.open_sender({ target: { address: '/messages/devicebound' } });
  const waiting = [];
  for (let number = 0; number < count; number += 1) waiting.push(...devices);
  const recipients = {};
  accepted = Object.fromEntries(devices.map((device) => [device, 0]));
  sender.on('accepted', ({ delivery }) => (accepted[recipients[delivery.id]] += 1));
  sender.on('sendable', () => {
    while (sender.sendable() && waiting.length > 0) {
      const device = waiting.shift();
      recipients[sender.send({ to: `/devices/${device}/messages/devicebound`, body: 'x' }).id] = device;
    }
  });
  flooding = new Promise((resolve) => connection.once('disconnected', resolve));
}

/** How many were accepted for each device until now. */
async function soFar() {
  return accepted;
}

/** How many were accepted for each device, when the connection is gone. */
async function flooded() {
  await flooding;
  return accepted;
}

converse({ exchange, flood, soFar, flooded });
