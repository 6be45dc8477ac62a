"""Reads a partition from its beginning with the unmodified ``azure-eventhub``; runs in the SDKs' environment.

    .venv-sdk/bin/python tests/bench/eventhub_reader.py CONNECTION_STRING PARTITION COUNT CA_FILE
"""

import json
import sys
import time
from typing import Any

from azure.eventhub import EventHubConsumerClient, TransportType


def main() -> None:
    connection_string, partition, count, ca_file = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    client = EventHubConsumerClient.from_connection_string(
        connection_string,
        consumer_group="$Default",
        connection_verify=ca_file,
        transport_type=TransportType.Amqp,
    )
    read, began = 0, 0.0

    def on_batch(_context: Any, events: list[Any]) -> None:
        nonlocal read, began
        if not read:
            began = time.monotonic()
        for event in events:
            if event.sequence_number != read:
                raise RuntimeError(f"event {event.sequence_number} came, {read} is next")
            read += 1
        if read >= count:
            took = time.monotonic() - began
            print(json.dumps({"events": read, "per_s": round(read / took), "errors": {"total": 0}}), flush=True)
            client.close()

    with client:
        client.receive_batch(
            on_batch, partition_id=partition, starting_position="-1", max_batch_size=1000, prefetch=5000
        )


if __name__ == "__main__":
    main()
