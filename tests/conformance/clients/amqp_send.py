"""Sends a message by AMQP to a port of MUSTER_HOST, once with SASL PLAIN and once ANONYMOUS; prints uamqp's log."""

import logging
import os
import sys

import uamqp
from uamqp import authentication, errors

host, port = os.environ["MUSTER_HOST"], int(sys.argv[1])
verify = os.environ["SSL_CERT_FILE"]
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
for credential in (
    authentication.SASLPlain(host, "user", "password", port=port, verify=verify),
    authentication.SASLAnonymous(host, port=port, verify=verify),
):
    client = uamqp.SendClient(f"amqps://{host}:{port}/entity", auth=credential)
    client.queue_message(uamqp.Message(b"a message"))
    try:
        client.send_all_messages(close_on_done=False)
    except errors.AMQPConnectionError as error:
        print(f"refused: {error}")
    finally:
        client.close()
