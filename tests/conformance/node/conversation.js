'use strict';
// What every client script here shares: requests come in a line each, answers go out a line each, as JSON. The words
// are those of ../clients/conversation.py, and the other side is tests/support/fix_clients.py.
const readline = require('readline');

/** Serve requests, all at the same time, until standard input ends; then end the process, whatever it still does. */
function converse(operations) {
  const input = readline.createInterface({ input: process.stdin });
  input.on('line', async (line) => {
    const { id, operation, arguments: given } = JSON.parse(line);
    let answer;
    try {
      const value = await operations[operation](given);
      answer = { id, value: value === undefined ? null : value };
    } catch (error) {
      answer = { id, error: description(error) };
    }
    process.stdout.write(JSON.stringify(answer) + '\n');
  });
  input.on('close', () => process.exit(0));
}

/** What the SDK raised; of an HTTP answer its status and body, of an AMQP error its condition and description. */
function description(error) {
  if (error.condition) return { kind: String(error.condition), text: '', causes: [], status: 0, body: String(error.description) };
  const { response, responseBody, result } = error;
  const body = responseBody !== undefined ? responseBody : result;
  return {
    kind: error.name === 'Error' ? error.constructor.name : error.name,
    text: String(error.message),
    causes: [],
    status: (response && response.statusCode) || 0,
    body: body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body),
  };
}

/** A promise of what a method with a callback says; of several values, the first. */
function promise(object, method, ...given) {
  return new Promise((resolve, reject) => {
    object[method](...given, (error, value) => (error ? reject(error) : resolve(value)));
  });
}

module.exports = { converse, promise };
