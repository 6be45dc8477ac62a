"""A log with as many events as one wants, written into the database of a server that does not run."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from muster.hub.event_batches import Messages, stored

_DEVICES = 100
_COMMIT = 500
"""Messages that one commit brought, five of each device."""

_AUTHENTICATION = '{"scope":"device","type":"x509Certificate","issuer":"external","acceptingIpFilterRule":null}'
_SYSTEM = '{"content-type":"application/json","content-encoding":"utf-8"}'
_APPLICATION = '{"level":"normal"}'


def fill(database: Path, hub: str, partition: int, count: int, size: int = 256) -> float:
    """Write events of ``size`` bytes into an empty partition; the seconds that it took."""
    body = b'{"pad":"' + b"x" * (size - 10) + b'"}'
    heads = [
        ("Telemetry", f"dev-{number:05}", "", "638681000000000000", _AUTHENTICATION, "", _SYSTEM, _APPLICATION)
        for number in range(_DEVICES)
    ]
    began, now = time.monotonic(), time.time_ns() // 1000
    number = offset = 0
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        while number < count:
            each = min(_COMMIT, count - number) // _DEVICES or 1
            some = heads[: min(_DEVICES, count - number)]
            messages = Messages.of(*[(head, [body] * each) for head in some])
            rows = stored(hub, partition, number, offset, messages, now + number)
            connection.executemany("INSERT INTO event_batch VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            number += messages.count
            offset += messages.size + messages.count
        changed = connection.execute(
            "UPDATE event_partition SET next_sequence_number = ?, next_offset = ?"
            " WHERE hub = ? AND partition = ? AND next_sequence_number = 0",
            (number, offset, hub, partition),
        )
        if changed.rowcount != 1:
            raise RuntimeError(f"partition {partition} of {hub} is not there, or not empty")
    return time.monotonic() - began
