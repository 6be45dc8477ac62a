"""What a check claims, shown on a running server: the answer as it stood on the wire, and the report behind it.

A conformance test says with ``@provokes("x509.thumbprint")`` which check its client runs into, and shows it with
``explain``; that it did is asserted at its end, and that no check was forgotten in ``tests/unit/test_provoked.py``.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import typer.main

from muster.cli.main import app
from muster.domain.check_table import CHECKS
from muster.domain.errors import UnauthorizedAccessError, UnauthorizedError
from muster.frontends.trace import TracedConnection, load_trace
from muster.wire.mqtt_decoder import decode_all, decode_remaining_length
from muster.wire.mqtt_packets import Connack, Connect, Packet, Publish
from tests.support.fix_server import MusterServer, free_address

provokes = pytest.mark.provokes

_RESPONSE = re.compile(rb"\$dps/registrations/res/(\d+)/")
_TOPIC = re.compile(rb"\$dps/registrations/(?:res/)?(PUT|GET|\d+)/")
_HTTP_HEAD = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n")
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COMMAND = re.compile(r"\bmuster ([a-z][^;:,()`]*)")


@dataclass(frozen=True)
class Told:
    """An answer of the provisioning service; ``status`` is that of HTTP or of the topic."""

    status: int
    body: dict[str, Any]
    mqtt: bool = True

    @property
    def tracking_id(self) -> str:
        return str(self.body["trackingId"])


class Wire:
    """What unmodified clients and a server said to each other, from the server's trace (MQTT and HTTPS, on TCP)."""

    def __init__(self, server: MusterServer) -> None:
        self._trace = server.directory / "wire.jsonl"

    def provisioning(self, registration_id: str) -> list[Told]:
        """What a device was told by the provisioning service over MQTT, in its order."""
        found = []
        for packet in self._sent_to(registration_id):
            response = _RESPONSE.match(packet.topic) if isinstance(packet, Publish) else None
            if response is not None:
                assert isinstance(packet, Publish)
                found.append(Told(int(response[1]), json.loads(packet.payload)))
        return found

    def connack(self, device_id: str) -> int:
        """The return code that a client got last."""
        return [packet.return_code for packet in self._sent_to(device_id) if isinstance(packet, Connack)][-1]

    def connection(self, client_id: str) -> TracedConnection:
        """The last one of that client. MQTT on TCP."""
        return [one for one in load_trace(self._trace) if _client_id(one) == client_id][-1]

    def moments(self, registration_id: str) -> list[tuple[str, float]]:
        """Of the last connection of that client: what it asked (``PUT``, ``GET``) and was told (``202``, ``200``), with
        the seconds since its first question.
        """
        found = [
            (word[1].decode(), record.time)  # a question comes in one read, and an answer leaves in one write
            for record in self.connection(registration_id).records
            for word in _TOPIC.finditer(record.data)
        ]
        return [(word, (moment - found[0][1]) / 1_000_000) for word, moment in found]

    def https(self, path: str) -> list[Told]:
        """The JSON answers on connections that asked for ``path`` among others, in their order."""
        found = []
        for connection in load_trace(self._trace):
            if path.encode() in _said(connection, "received"):
                sent = _said(connection, "sent")
                for head in _HTTP_HEAD.finditer(sent):
                    length = _LENGTH.search(head[2])
                    body = sent[head.end() : head.end() + int(length[1])] if length else b""
                    found.append(Told(int(head[1]), json.loads(body or b"{}"), mqtt=False))
        return found

    def _sent_to(self, client_id: str) -> Iterator[Packet]:
        for connection in load_trace(self._trace):
            if _client_id(connection) == client_id:
                yield from decode_all(_said(connection, "sent"))


def _said(connection: TracedConnection, direction: str) -> bytes:
    return b"".join(record.data for record in connection.records if record.direction == direction)


def _client_id(connection: TracedConnection) -> str | None:
    """The client id of an MQTT connection."""
    received = _said(connection, "received")
    if received[:1] != b"\x10":
        return None
    length, body = decode_remaining_length(received, 1)
    (connect,) = decode_all(received[: body + length])
    return connect.client_id if isinstance(connect, Connect) else None


@pytest.fixture(scope="module")
def traced_muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterServer]:
    """A server for a module that keeps what was said."""
    directory = tmp_path_factory.mktemp("muster")
    server = MusterServer(directory, free_address(), "--trace", str(directory / "wire.jsonl")).start()
    yield server
    assert server.stop() == 0, server.output
    assert "Traceback" not in server.output, server.output


class Explain:
    """Finds reports as a user does, and requires that they help: what was found, and a way out that exists.

    ``listed`` are the reports of earlier lists, by their tracking ids: a command for each would cost a second.
    """

    def __init__(self, listed: dict[str, dict[str, Any]]) -> None:
        self.shown: set[str] = set()
        self._listed = listed

    def __call__(
        self, server: MusterServer, key: str, check_id: str, *, also: tuple[str, ...] = (), verdict: str = "refused"
    ) -> dict[str, Any]:
        """The newest report under a tracking id, registration id or device id: ``check_id``, ``also`` and no other
        refuses in it; or, if it warns, it is among those that do.
        """
        report = self._report(server, key)
        assert report["verdict"] == verdict, report
        told = {check["id"]: check for check in report["checks"] if check["outcome"] in ("refused", "warned")}
        refused = [one for one, check in told.items() if check["outcome"] == "refused"]
        warns = CHECKS[check_id].severity == "warn"
        assert set(refused) == {*also, *(() if warns else (check_id,))}, report["checks"]
        assert (told[check_id]["outcome"] == "warned") == warns
        for check in told.values():
            assert check["detail"]
            require_advice(check["fix"])
        self.shown.add(check_id)
        return report

    def _report(self, server: MusterServer, key: str) -> dict[str, Any]:
        if _GUID.fullmatch(key) and key not in self._listed:
            self._listed.update({one["trackingId"]: one for one in server.cli_json("why", "--top", "1000")})
        report: dict[str, Any] = self._listed.get(key) or server.cli_json("why", key)[0]
        return report

    def told(self, server: MusterServer, told: Told, check_id: str, *, also: tuple[str, ...] = ()) -> dict[str, Any]:
        """The same for a refusal as it stood on the wire, whose number and words are those of the table."""
        (error,) = {CHECKS[one].error for one in (check_id, *also) if CHECKS[one].error is not None}
        assert error is not None
        assert set(told.body) == {"errorCode", "trackingId", "message", "timestampUtc"}
        # Over MQTT alone, Unauthorized has a number of its own.
        expected = UnauthorizedError.code if told.mqtt and error is UnauthorizedAccessError else error.code
        assert (told.status, told.body["errorCode"]) == (error.code // 1000, expected)
        assert told.body["message"] == error.message or error.code // 1000 == 400
        report = self(server, told.tracking_id, check_id, also=also)
        assert report["trackingId"] == told.tracking_id
        assert str(report["answer"]).startswith(f"{error.code} {error.message}")
        return report


def require_advice(fix: str) -> None:
    """It says something, and every command and option in it exists."""
    assert fix
    for command in _COMMAND.findall(fix):
        found: Any = typer.main.get_command(app)
        words = command.split()
        while hasattr(found, "get_command") and words:
            found = found.get_command(found.context_class(found), words[0])
            assert found is not None, f"there is no command: muster {command}"
            words = words[1:]
        options = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word for word in words if word.startswith("--")} - options
        assert not unknown, f"muster {command}: there is no {unknown}"


@pytest.fixture(scope="session")
def listed_reports() -> dict[str, dict[str, Any]]:
    return {}


@pytest.fixture
def explain(request: pytest.FixtureRequest, listed_reports: dict[str, dict[str, Any]]) -> Iterator[Explain]:
    """See ``Explain``. At the end it asserts that the checks were shown that the test claims to provoke."""
    explained = Explain(listed_reports)
    yield explained
    claimed = {check_id for mark in request.node.iter_markers("provokes") for check_id in mark.args}
    assert claimed == explained.shown, "@provokes names other checks than were shown"
