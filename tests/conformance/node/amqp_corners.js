'use strict';
// AMQP by rhea, which knows nothing of Azure: how a connection opens and is refused, $cbs, links that are refused.
const { randomUUID } = require('crypto');
const rhea = require('rhea');
const WebSocket = require('ws');

const { converse } = require('./conversation');

const HOST = process.env.MUSTER_HOST;
const SECONDS = 90000;

const connections = {};
const ends = {};

/** The first of these events; the others reject. What is rejected with says condition and description. */
function first(emitter, wanted, others) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${wanted} came`)), SECONDS);
    emitter.once(wanted, (context) => {
      clearTimeout(timer);
      resolve(context);
    });
    for (const [event, subject] of others) {
      emitter.once(event, (context) => {
        clearTimeout(timer);
        const error = (context[subject] && context[subject].error) || context.error || {};
        const told = new Error(String(error.description || error.message || event));
        told.name = String(error.condition || event);
        reject(told);
      });
    }
  });
}

/** Open a connection: bare, with ``mechanism``, or with user and password by PLAIN; over ``ws`` or TLS. */
async function connect({ name, transport = 'tls', username, password, mechanism, subprotocol = 'AMQPWSB10' }) {
  const container = rhea.create_container();
  const options = { host: HOST, hostname: HOST, servername: HOST, port: 5671, transport: 'tls', reconnect: false };
  if (username !== undefined) Object.assign(options, { username, password });
  if (mechanism === 'ANONYMOUS') Object.assign(options, { username: 'anonymous' });
  if (mechanism === 'EXTERNAL') {
    options.sasl_mechanisms = rhea.sasl.client_mechanisms();
    options.sasl_mechanisms.enable_external();
  }
  if (transport === 'ws') {
    const details = container.websocket_connect(WebSocket)(`wss://${HOST}/$iothub/websocket`, [subprotocol], {});
    Object.assign(options, { connection_details: details });
    delete options.port;
  }
  const connection = container.connect(options);
  connections[name] = connection;
  ends[name] = new Promise((resolve) => {
    connection.once('connection_error', () => resolve(String(connection.error && connection.error.condition)));
    connection.once('disconnected', () => resolve('disconnected'));
  });
  await first(connection, 'connection_open', [
    ['connection_error', 'connection'],
    ['connection_close', 'connection'],
    ['disconnected', 'connection'],
  ]);
  return connection.container_id;
}

/** Attach; the address that the server says, or what it refuses with. */
async function attach({ name, address, sender }) {
  const connection = connections[name];
  const session = connection.create_session();
  session.begin();
  const link = sender ? session.open_sender({ target: { address } }) : session.open_receiver({ source: { address } });
  const kind = sender ? 'sender' : 'receiver';
  const opened = sender ? 'sendable' : 'receiver_open';
  const refused = new Promise((resolve) => link.once(`${kind}_error`, resolve));
  // A link that is refused is attached first: wait for what a refusal would bring before it.
  await first(link, opened, [[`${kind}_error`, kind], [`${kind}_close`, kind]]);
  const later = await Promise.race([refused, new Promise((resolve) => setTimeout(resolve, 200, null))]);
  if (later) {
    const error = new Error(String(link.error.description));
    error.name = String(link.error.condition);
    throw error;
  }
  return link.source.address || link.target.address;
}

/** Put a token; status and description of the reply, whose correlation id must be that of the request. */
async function put({ name, audience, token, what = 'put-token', id = randomUUID() }) {
  const connection = connections[name];
  if (!connection.cbs) {
    const session = connection.create_session();
    session.begin();
    const receiver = session.open_receiver({ source: { address: '$cbs' } });
    const sender = session.open_sender({ target: { address: '$cbs' } });
    await first(sender, 'sendable', [['sender_error', 'sender']]);
    connection.cbs = { receiver, sender };
  }
  const { receiver, sender } = connection.cbs;
  const order = [];
  sender.once('accepted', () => order.push('accepted'));
  const answered = first(receiver, 'message', [['receiver_error', 'receiver']]);
  sender.send({
    message_id: id,
    to: '$cbs',
    reply_to: 'cbs',
    application_properties: { operation: what, type: 'servicebus.windows.net:sastoken', name: audience },
    body: token,
  });
  const { message } = await answered;
  order.push('reply');
  const { 'status-code': status, 'status-description': text } = message.application_properties;
  return { status, text, order, same: message.correlation_id === id };
}

/** Close in good order; whether the server did so too. */
async function close({ name }) {
  const connection = connections[name];
  const closed = first(connection, 'connection_close', [['disconnected', 'connection']]);
  connection.close();
  await closed;
  return connection.error === undefined || connection.error === null;
}

/** Wait for the server's close, which may have come before; its condition. */
async function closed({ name }) {
  return ends[name];
}

converse({ connect, attach, put, close, closed });
