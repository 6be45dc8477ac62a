'use strict';
// A back end by azure-iothub: its registry, method by method.
const { Registry } = require('azure-iothub');

const { converse, promise } = require('./conversation');

/** What a method of the registry says, as plain JSON. */
async function call({ connectionString, method, given }) {
  const value = await promise(Registry.fromConnectionString(connectionString), method, ...given);
  return value === undefined ? null : JSON.parse(JSON.stringify(value));
}

converse({ call });
