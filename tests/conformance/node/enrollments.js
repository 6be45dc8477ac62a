'use strict';
// A back end by azure-iot-provisioning-service. Its methods with a callback: the promises of some never resolve.
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

const { converse, promise } = require('./conversation');

/** Any method that has a callback. */
function call({ connectionString, method, given }) {
  return promise(ProvisioningServiceClient.fromConnectionString(connectionString), method, ...given);
}

/** All items of a query, page by page. */
async function pages({ connectionString, method, given }) {
  const client = ProvisioningServiceClient.fromConnectionString(connectionString);
  const query = client[method]({ query: '*' }, ...given);
  const found = [];
  while (query.hasMoreResults) found.push(await promise(query, 'next'));
  return found;
}

converse({ call, pages });
