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
    times: list[float] = []
    seen: set[int] = set()
    again: list[int] = []
    done = threading.Event()

    def on_batch(_context: Any, events: list[Any]) -> None:
        times.append(time.monotonic())
        numbers = [event.sequence_number for event in events]
        again.extend(number for number in numbers if number in seen)
        seen.update(numbers)
        if seen.issuperset(range(count)) if len(seen) >= count else again:
            done.set()

    options = {"partition_id": partition, "starting_position": "-1", "max_batch_size": 1000, "prefetch": 5000}
    import logging

    logging.basicConfig(level=logging.INFO)
    # A client cannot be closed from its own callback.
    threading.Thread(target=client.receive_batch, args=(on_batch,), kwargs=options, daemon=True).start()
    done.wait(600)
    faults = len(again) + len(set(range(count)) - seen)
    per_s = round(len(seen) / (times[-1] - times[0]))
    print(json.dumps({"events": len(seen), "per_s": per_s, "errors": {"total": faults}}))
    client.close()


if __name__ == "__main__":
    main()
