"""A log with as many events as one wants, written into the database of a server that does not run."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

_FILL = """
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :count - 1)
INSERT INTO event
SELECT :hub, :partition, n, n * (length(:body) + 1), :now + n, 'Telemetry', 'dev-' || substr('0000' || n % 100, -5), '',
    '638681000000000000', :authentication, '', :system, :application, :body
FROM number
"""
_AUTHENTICATION = '{"scope":"device","type":"x509Certificate","issuer":"external","acceptingIpFilterRule":null}'
_SYSTEM = '{"content-type":"application/json","content-encoding":"utf-8"}'
_APPLICATION = '{"level":"normal"}'


def fill(database: Path, hub: str, partition: int, count: int, size: int = 256) -> float:
    """Write events of ``size`` bytes into an empty partition; the seconds that it took."""
    body = b'{"pad":"' + b"x" * (size - 10) + b'"}'
    began = time.monotonic()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        values = {
            "hub": hub,
            "partition": partition,
            "count": count,
            "now": time.time_ns() // 1000,
            "authentication": _AUTHENTICATION,
            "system": _SYSTEM,
            "application": _APPLICATION,
            "body": body,
        }
        connection.execute(_FILL, values)
        changed = connection.execute(
            "UPDATE event_partition SET next_sequence_number = :count, next_offset = :count * :each"
            " WHERE hub = :hub AND partition = :partition AND next_sequence_number = 0",
            {"hub": hub, "partition": partition, "count": count, "each": size + 1},
        )
        if changed.rowcount != 1:
            raise RuntimeError(f"partition {partition} of {hub} is not there, or not empty")
    return time.monotonic() - began
