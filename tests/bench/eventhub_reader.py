"""Reads a partition from its beginning with the unmodified ``azure-eventhub``; runs in the SDKs' environment.

.venv-sdk/bin/python tests/bench/eventhub_reader.py CONNECTION_STRING PARTITION COUNT CA_FILE
"""

import json
import sys
import threading
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
    read, times = 0, [0.0, 0.0]
    faults: list[str] = []
    done = threading.Event()

    def on_batch(_context: Any, events: list[Any]) -> None:
        nonlocal read
        times[read > 0] = time.monotonic()
        for event in events:
            if event.sequence_number != read and not faults:
                faults.append(f"event {event.sequence_number} came, {read} is next")
            read += 1
        if read >= count or faults:
            done.set()

    options = {"partition_id": partition, "starting_position": "-1", "max_batch_size": 1000, "prefetch": 5000}
    import logging

    logging.basicConfig(level=logging.INFO)
    # A client cannot be closed from its own callback.
    threading.Thread(target=client.receive_batch, args=(on_batch,), kwargs=options, daemon=True).start()
    done.wait(600)
    print(
        json.dumps(
            {
                "events": read,
                "per_s": round(read / (times[1] - times[0])),
                "errors": {"total": len(faults), "first": faults[:1]},
            }
        )
    )
    client.close()


if __name__ == "__main__":
    main()
