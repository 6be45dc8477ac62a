'use strict';
// Devices by rhea, which knows nothing of Azure: many on one connection, batches, outcomes that no SDK has.
const { randomUUID } = require('crypto');
const rhea = require('rhea');

const { converse } = require('./conversation');

const HOST = process.env.MUSTER_HOST;
const SECONDS = 90000;
const CREDIT = 10;

const connections = {};

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come`)), SECONDS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const once = (emitter, event) => within(new Promise((resolve) => emitter.once(event, resolve)), event);

function failed(error) {
  const told = new Error(String(error && error.description));
  told.name = String(error && error.condition);
  return told;
}

/** Open a connection, and put each of these tokens. */
async function connect({ name, tokens }) {
  const container = rhea.create_container();
  const connection = container.connect({ host: HOST, servername: HOST, port: 5671, transport: 'tls', reconnect: false });
  await once(connection, 'connection_open');
  connections[name] = { connection, links: {}, inboxes: {}, ends: {} };
  const receiver = connection.open_receiver({ source: { address: '$cbs' } });
  const sender = connection.open_sender({ target: { address: '$cbs' } });
  await once(sender, 'sendable');
  for (const [audience, token] of Object.entries(tokens)) {
    const id = randomUUID();
    const answered = once(receiver, 'message');
    sender.send({
      message_id: id,
      to: '$cbs',
      application_properties: { operation: 'put-token', type: 'servicebus.windows.net:sastoken', name: audience },
      body: token,
    });
    const { message } = await answered;
    if (message.application_properties['status-code'] !== 200) throw new Error(`${audience} is refused`);
  }
}

/** Attach links to the addresses, in a session for each or all in one; wait until all are taken. */
async function attach({ name, addresses, sender, sessions = false, options = {} }) {
  const { connection, links, inboxes, ends } = connections[name];
  const attached = [];
  for (const address of addresses) {
    let parent = connection;
    if (sessions) {
      parent = connection.create_session();
      parent.begin();
    }
    const link = sender
      ? parent.open_sender({ target: { address }, ...options })
      : parent.open_receiver({ source: { address }, credit_window: 0, autoaccept: false, autosettle: false, ...options });
    links[address] = link;
    inboxes[address] = [];
    const kind = sender ? 'sender' : 'receiver';
    ends[address] = new Promise((resolve) => {
      link.once(`${kind}_error`, () => resolve(String(link.error.condition)));
      link.once(`${kind}_close`, () => resolve(null));
    });
    if (!sender) {
      link.on('message', ({ message, delivery }) => inboxes[address].push({ message, delivery }));
      link.add_credit(CREDIT);
    }
    attached.push(once(link, sender ? 'sendable' : 'receiver_open'));
  }
  await Promise.all(attached);
}

/** Send; done when it is accepted. With ``batch`` the bodies go in one delivery. */
async function send({ name, address, bodies, batch = false, properties = {} }) {
  const link = connections[name].links[address];
  const messages = bodies.map((body) => ({
    body: rhea.message.data_section(Buffer.from(body)),
    application_properties: properties,
  }));
  let deliveries;
  if (batch) {
    const sections = rhea.message.data_sections(messages.map((message) => rhea.message.encode(message)));
    deliveries = [link.send(rhea.message.encode({ body: sections }), undefined, 0x80013700)];
  } else deliveries = messages.map((message) => link.send(message));
  const wanted = new Set(deliveries.map(({ id }) => id));
  await within(
    new Promise((resolve, reject) => {
      link.on('accepted', ({ delivery }) => {
        wanted.delete(delivery.id);
        if (!wanted.size) resolve();
      });
      link.on('rejected', ({ delivery }) => reject(failed(delivery.remote_state.error)));
    }),
    'the disposition',
  ).finally(() => {
    link.removeAllListeners('accepted');
    link.removeAllListeners('rejected');
  });
}

async function next(name, address) {
  const inbox = connections[name].inboxes[address];
  for (let waited = 0; !inbox.length; waited += 20) {
    if (waited > SECONDS) throw new Error('no message came');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return inbox.shift();
}

/** The next message, settled so: ``accepted``, ``rejected``, ``released``, ``modified``, or ``second``: the receiver
 * says accepted first, and settles when the hub has. */
async function receive({ name, address, outcome }) {
  const { message, delivery } = await next(name, address);
  let told = null;
  if (outcome === 'second') {
    const link = connections[name].links[address];
    const settled = once(link, 'settled');
    delivery.update(false, rhea.message.accepted().described());
    await settled;
    told = delivery.remote_state.constructor.composite_type;
  } else if (outcome === 'modified') delivery.modified({ delivery_failed: true });
  else delivery[{ accepted: 'accept', rejected: 'reject', released: 'release' }[outcome]]();
  const { message_annotations: annotations, body } = message;
  return { body: String(body.content), count: annotations['iothub-deliverycount'], tag: delivery.tag.length, told };
}

/** How a link ended: a condition, or null. */
async function ended({ name, address }) {
  return within(connections[name].ends[address], 'the end of the link');
}

async function close({ name }) {
  const { connection } = connections[name];
  const closed = once(connection, 'connection_close');
  connection.close();
  await closed;
}

converse({ connect, attach, send, receive, ended, close });
