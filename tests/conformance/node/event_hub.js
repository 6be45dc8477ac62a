'use strict';
// Consumers of the Event Hubs-compatible endpoint: @azure/event-hubs, and the older azure-event-hubs, which also finds
// its way from the connection string of an IoT hub.
const { EventHubConsumerClient, earliestEventPosition } = require('@azure/event-hubs');
const older = require('azure-event-hubs');
const ws = require('ws');

const { converse } = require('./conversation');

const readers = {};

function plain(value) {
  return JSON.parse(JSON.stringify(value, (key, item) => (typeof item === 'bigint' ? Number(item) : item)));
}

/** What is told of an event, the same for both generations. */
function described(event, partition) {
  return plain({
    partition,
    body: Buffer.isBuffer(event.body) ? event.body.toString() : event.body,
    offset: event.offset,
    sequenceNumber: event.sequenceNumber,
    enqueuedTime: event.enqueuedTimeUtc,
    partitionKey: event.partitionKey,
    properties: event.properties || event.applicationProperties || {},
    systemProperties: event.systemProperties || event.annotations || {},
    device: (event.systemProperties || event.annotations || {})['iothub-connection-device-id'],
  });
}

class Reader {
  constructor() {
    this.events = [];
    this.errors = [];
    this.waiting = [];
  }

  take(event, partition) {
    this.events.push(described(event, partition));
    this.tell();
  }

  fail(error) {
    this.errors.push(`${error.code || error.name}: ${error.message}`);
    this.tell();
  }

  tell() {
    this.waiting = this.waiting.filter(({ came, resolve }) => (came() ? (resolve(), false) : true));
  }

  wait(counts, errors) {
    const came = () =>
      this.errors.length >= errors &&
      Object.entries(counts).every(([device, n]) => this.events.filter((event) => event.device === device).length >= n);
    return new Promise((resolve) => {
      this.waiting.push({ came, resolve });
      this.tell();
    });
  }
}

function consumer(connectionString, group, websockets) {
  const retryOptions = { maxRetries: 0 };
  const options = websockets ? { retryOptions, webSocketOptions: { webSocket: ws } } : { retryOptions };
  return new EventHubConsumerClient(group || '$Default', connectionString, options);
}

async function properties({ connectionString, websockets }) {
  const client = consumer(connectionString, undefined, websockets);
  try {
    const found = await client.getEventHubProperties();
    const partitions = [];
    for (const id of found.partitionIds) partitions.push(await client.getPartitionProperties(id));
    return plain({ eventHub: found, partitions });
  } finally {
    await client.close();
  }
}

/** Subscribe, to one partition or to all. ``position`` is the library's own. */
function start({ reader, connectionString, websockets, group, partition, position, ownerLevel }) {
  const client = consumer(connectionString, group, websockets);
  const known = (readers[reader] = new Reader());
  const handlers = {
    processEvents: async (events, context) => events.forEach((event) => known.take(event, context.partitionId)),
    processError: async (error) => known.fail(error),
  };
  if (position && position.enqueuedOn) position.enqueuedOn = new Date(position.enqueuedOn);
  const options = { startPosition: position || earliestEventPosition, maxBatchSize: 100, maxWaitTimeInSeconds: 1 };
  if (ownerLevel !== undefined) options.ownerLevel = ownerLevel;
  const subscription = partition
    ? client.subscribe(partition, handlers, options)
    : client.subscribe(handlers, options);
  known.close = async () => {
    await subscription.close();
    await client.close();
  };
}

/** The older library. ``connectionString`` is of the IoT hub, or with an EntityPath of its event hub. */
async function startOlder({ reader, connectionString, group }) {
  const client = await olderClient(connectionString);
  const known = (readers[reader] = new Reader());
  const options = { eventPosition: older.EventPosition.fromStart(), consumerGroup: group || '$Default' };
  const receivers = (await client.getPartitionIds()).map((partition) =>
    client.receive(partition, (event) => known.take(event, partition), (error) => known.fail(error), options),
  );
  known.close = async () => {
    await Promise.all(receivers.map((receiver) => receiver.stop()));
    await client.close();
  };
}

function olderClient(connectionString) {
  return connectionString.includes('EntityPath=')
    ? older.EventHubClient.createFromConnectionString(connectionString)
    : older.EventHubClient.createFromIotHubConnectionString(connectionString);
}

async function olderProperties({ connectionString }) {
  const client = await olderClient(connectionString);
  try {
    const found = await client.getHubRuntimeInformation();
    const partitions = [];
    for (const id of found.partitionIds) partitions.push(await client.getPartitionInformation(id));
    return plain({ eventHub: found, partitions });
  } finally {
    await client.close();
  }
}

async function wait({ reader, counts, errors }) {
  await readers[reader].wait(counts || {}, errors || 0);
  return readers[reader].errors;
}

async function close({ reader }) {
  const known = readers[reader];
  delete readers[reader];
  await known.close();
  return { events: known.events, errors: known.errors };
}

converse({ properties, start, startOlder, olderProperties, wait, close });
