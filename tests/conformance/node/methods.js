'use strict';
// A back end by azure-iothub that asks direct methods of devices and modules.
const { Client } = require('azure-iothub');

const { converse, promise } = require('./conversation');

/** What the device answers; ``ids`` are device and perhaps module. */
async function invoke({ connection_string: text, ids, name, payload, response_seconds: response, connect_seconds }) {
  const client = Client.fromConnectionString(text);
  const method = { methodName: name, payload };
  if (response) method.responseTimeoutInSeconds = response;
  if (connect_seconds) method.connectTimeoutInSeconds = connect_seconds;
  const { status, payload: answer } = await promise(client, 'invokeDeviceMethod', ...ids, method);
  return { status, payload: answer };
}

converse({ invoke });
