"""Events as they come, over HTTPS: while devices send, after a cut, and until the server stops."""

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, SdkClient
from tests.support.fix_server import MusterServer, StartServer

from muster.frontends.tls.transport import TlsLimits

CLOSE_SECONDS = TlsLimits().close_timeout
KEY = base64.b64encode(bytes(range(32))).decode()


@contextmanager
def stream(https: HttpsClient, target: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    connection = https.connection()
    own = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", target, headers={"Authorization": https.token(), "Accept": "text/event-stream", **own})
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    try:
        yield response
    finally:
        response.close()
        connection.close()


def events(response: http.client.HTTPResponse, number: int) -> list[tuple[str, Any]]:
    """The next events: their ids and their data."""
    found: list[tuple[str, Any]] = []
    fields: dict[str, str] = {}
    while len(found) < number:
        line = response.readline().decode().rstrip("\n")
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            found.append((fields["id"], json.loads(fields["data"])))
            fields = {}
    return found


def test_following_devices(start_server: StartServer) -> None:
    """Nothing is missed and nothing comes twice, although the reader is cut off again and again."""
    server = start_server()
    https = HttpsClient(server)
    names = [f"follow-{number}" for number in range(4)]
    for name in names:
        keys = {"primaryKey": KEY, "secondaryKey": KEY}
        https.create_device(name, authentication={"type": "sas", "symmetricKey": keys})
    with SdkClient(server, "device.py") as device:
        for name in names:
            connection_string = f"HostName={server.address};DeviceId={name};SharedAccessKey={KEY}"
            device.call("connect", connection=name, connection_string=connection_string)
        with stream(https, "/muster/v1/events") as response:
            assert response.readline().startswith(b":")  # it follows from here on
            sending = [
                device.start("send", connection=name, messages=[{"body": str(number)} for number in range(50)])
                for name in names
            ]
            received = events(response, 7)
        while len(received) < 200:
            with stream(https, "/muster/v1/events", last_event_id=received[-1][0]) as response:
                received += events(response, min(41, 200 - len(received)))
        for future in sending:
            future.result(90)
        for name in names:
            bodies = [data["body"] for _, data in received if data["deviceId"] == name]
            assert bodies == list(range(50))
        with stream(https, f"/muster/v1/events?from=earliest&deviceId={names[2]}") as response:
            assert [data["body"] for _, data in events(response, 50)] == list(range(50))


def seconds_to_stop(server: MusterServer, target: str, *, reading: bool) -> float:
    """How long a clean stop takes while one client follows events; ``reading``: it closes when it sees the end."""
    https = HttpsClient(server)
    connection = https.connection()
    connection.request("GET", target, headers={"Authorization": https.token(), "Accept": "text/event-stream"})
    response = connection.getresponse()
    assert response.readline().startswith(b":")

    def to_the_end() -> None:
        assert response.read().strip() == b""
        connection.close()

    reader = threading.Thread(target=to_the_end)
    if reading:
        reader.start()
    started = time.monotonic()
    assert server.stop() == 0
    seconds = time.monotonic() - started
    if not reading:
        reader.start()
    reader.join(60)
    assert not reader.is_alive()
    return seconds


@pytest.mark.parametrize("target", ["/muster/v1/events", "/muster/v1/events?from=earliest"])
def test_a_stream_does_not_keep_the_server_from_stopping(start_server: StartServer, target: str) -> None:
    """A client that reads sees its end, and closes, as curl and browsers do: the server is gone at once. One try of
    five is enough, as the machine may be busy.
    """
    tries = (seconds_to_stop(start_server(), target, reading=True) for _ in range(5))
    assert any(seconds < CLOSE_SECONDS for seconds in tries)


def test_a_client_that_does_not_read_gets_its_time(start_server: StartServer) -> None:
    """So that what was sent last is not lost to a reset (``TlsProtocol.shut``)."""
    seconds = seconds_to_stop(start_server(), "/muster/v1/events", reading=False)
    assert seconds > CLOSE_SECONDS - 0.1
