'use strict';
// Devices by azure-iot-provisioning-device and azure-iot-device: registering in every way that they have, with every
// attestation; then the hub.
const fs = require('fs');
const net = require('net');

const tss = require('tss.js');
const { Client, Message, ModuleClient } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const ProvisioningHttp = require('azure-iot-provisioning-device-http').Http;
const ProvisioningMqtt = require('azure-iot-provisioning-device-mqtt').Mqtt;
const ProvisioningMqttWs = require('azure-iot-provisioning-device-mqtt').MqttWs;
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { TpmSecurityClient } = require('azure-iot-security-tpm');
const { X509Security } = require('azure-iot-security-x509');

const { converse, promise } = require('./conversation');

const HOST = process.env.MUSTER_HOST;
const TRANSPORTS = { http: ProvisioningHttp, mqtt: ProvisioningMqtt, 'mqtt-ws': ProvisioningMqttWs };
const HUB_TRANSPORTS = { mqtt: Mqtt, 'mqtt-ws': MqttWs, amqp: Amqp, 'amqp-ws': AmqpWs };
const TOKEN_SECONDS = 3600;

const connections = {};
const tpms = {};

function certificate({ certificate, key }) {
  return { cert: fs.readFileSync(certificate, 'ascii'), key: fs.readFileSync(key, 'ascii') };
}

/** The whole result of a registration: with ``symmetricKey``, the files of a certificate, a TPM, or nothing (``bare``). */
async function register({ registrationId, idScope, transport, symmetricKey, tpm, bare, payload, host = HOST, ...files }) {
  let security;
  if (tpm) security = tpms[tpm];
  else if (symmetricKey) security = new SymmetricKeySecurityClient(registrationId, symmetricKey);
  else security = new X509Security(registrationId, bare ? {} : certificate(files));
  const client = ProvisioningDeviceClient.create(host, idScope, new TRANSPORTS[transport](), security);
  if (payload !== undefined) client.setProvisioningPayload(payload);
  return promise(client, 'register');
}

/** What lies below tss.js: a TPM on a unix socket, which takes commands as they are. */
class SocketDevice {
  constructor(path) {
    this.path = path;
  }

  connect(continuation) {
    this.socket = net.connect(this.path, () => setImmediate(continuation, null));
    return null;
  }

  dispatchCommand(command, continuation) {
    let response = Buffer.alloc(0);
    const read = (piece) => {
      response = Buffer.concat([response, piece]);
      if (response.length < 10 || response.length < response.readUInt32BE(2)) return;
      this.socket.removeListener('data', read);
      setImmediate(continuation, null, response);
    };
    this.socket.on('data', read);
    this.socket.write(command);
  }

  close() {
    this.socket.end();
  }
}

/** Open a TPM under a name; what an enrollment of it needs. */
async function openTpm({ tpm, socket }) {
  const device = new tss.Tpm(false);
  device.device = new SocketDevice(socket);
  const client = (tpms[tpm] = new TpmSecurityClient(undefined, device));
  const endorsementKey = await promise(client, 'getEndorsementKey');
  const storageRootKey = await promise(client, 'getStorageRootKey');
  return {
    endorsementKey: endorsementKey.toString('base64'),
    storageRootKey: storageRootKey.toString('base64'),
    registrationId: await promise(client, 'getRegistrationId'),
  };
}

/** A token of the hub that the TPM signs with the key it was given last. */
async function tpmToken({ tpm, deviceId }) {
  const resource = encodeURIComponent(`${HOST}/devices/${deviceId}`);
  const expiry = Math.floor(Date.now() / 1000) + TOKEN_SECONDS;
  const signature = await promise(tpms[tpm], 'signWithIdentity', Buffer.from(`${resource}\n${expiry}`));
  return `SharedAccessSignature sr=${resource}&sig=${encodeURIComponent(signature.toString('base64'))}&se=${expiry}`;
}

/** Open a connection to the hub under a name: by a token, a connection string (also of a module), or the files of a
 * certificate. */
async function connect({ connection, transport = 'mqtt', deviceId, moduleId, symmetricKey, token, ...files }) {
  const Transport = HUB_TRANSPORTS[transport];
  const place = `HostName=${HOST};DeviceId=${deviceId}`;
  let client;
  if (moduleId)
    client = ModuleClient.fromConnectionString(`${place};ModuleId=${moduleId};SharedAccessKey=${symmetricKey}`, Transport);
  else if (token) client = Client.fromSharedAccessSignature(token, Transport);
  else if (symmetricKey) client = Client.fromConnectionString(`${place};SharedAccessKey=${symmetricKey}`, Transport);
  else {
    client = Client.fromConnectionString(`${place};x509=true`, Transport);
    await promise(client, 'setOptions', certificate(files));
  }
  connections[connection] = client;
  await promise(client, 'open');
}

/** A message as the SDK has it, with system properties by its own names for them. */
function message({ body, properties = {}, ...system }) {
  const made = Object.assign(new Message(body), system);
  for (const [name, value] of Object.entries(properties)) made.properties.add(name, value);
  return made;
}

async function send({ connection, ...given }) {
  await promise(connections[connection], 'sendEvent', message(given));
}

async function close({ connection }) {
  const client = connections[connection];
  delete connections[connection];
  await promise(client, 'close');
}

converse({ register, openTpm, tpmToken, connect, send, close });
