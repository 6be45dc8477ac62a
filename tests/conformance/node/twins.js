'use strict';
// A back end by azure-iothub: twins and queries of its registry.
const { Registry } = require('azure-iothub');

const { converse, promise } = require('./conversation');

/** What is JSON of a twin object; its methods and its registry are not. */
function plain(twin) {
  return JSON.parse(JSON.stringify({ ...twin, _registry: undefined }));
}

function find(registry, deviceId, moduleId) {
  return moduleId
    ? promise(registry, 'getModuleTwin', deviceId, moduleId)
    : promise(registry, 'getTwin', deviceId);
}

async function getTwin({ connectionString, deviceId, moduleId }) {
  return plain(await find(Registry.fromConnectionString(connectionString), deviceId, moduleId));
}

/** ``twin.update``, which sends the etag that the twin was read with; or an earlier one. */
async function updateTwin({ connectionString, deviceId, moduleId, patch, etag }) {
  const twin = await find(Registry.fromConnectionString(connectionString), deviceId, moduleId);
  if (etag) twin.etag = etag;
  return plain(await promise(twin, 'update', patch));
}

/** All items of a query, page by page. */
async function pages({ connectionString, text, size }) {
  const query = Registry.fromConnectionString(connectionString).createQuery(text, size);
  const found = [];
  while (query.hasMoreResults) found.push(await promise(query, 'next'));
  return found;
}

/** The same as twin objects. */
async function twins({ connectionString, text, size }) {
  const query = Registry.fromConnectionString(connectionString).createQuery(text, size);
  const found = [];
  while (query.hasMoreResults) found.push(...(await promise(query, 'nextAsTwin')).map(plain));
  return found;
}

converse({ getTwin, updateTwin, pages, twins });
