"""HTTPS devices of clients that cannot be installed here, replayed from the references: the SDKs for C, .NET and Java,
and the Azure command line (hub-device.md 10, 14).

What each client insists on is checked as it checks it: header names letter by letter, quotes, exact statuses.
"""

import base64
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from tests.support.fix_clients import HttpsClient
from tests.support.fix_server import MusterServer

from muster.domain.sas import create_token, sign

KEY = base64.b64encode(bytes(range(32))).decode()
_FAR = 4_000_000_000


@dataclass(frozen=True)
class Reply:
    """An answer with the names of its headers as they were sent."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection of a client, on which request follows request."""

    def __init__(self, server: MusterServer) -> None:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        tcp = socket.create_connection((server.address, 443), timeout=60)
        self._socket = context.wrap_socket(tcp, server_hostname=server.address)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, request: str, body: bytes = b"") -> Reply:
        """``request`` is the request line and the headers, as the client writes them."""
        self._socket.sendall("\r\n".join([*request.strip().splitlines(), "", ""]).encode() + body)
        return self.reply()

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> Reply:
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self._file.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(": ")
            headers[name] = value
        length = next((value for name, value in headers.items() if name.lower() == "content-length"), "0")
        return Reply(status, headers, self._file.read(int(length)))


class Back:
    """The back end: it makes devices and sends them messages."""

    def __init__(self, https: HttpsClient) -> None:
        self.https = https

    def create(self, device_id: str) -> None:
        keys = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
        self.https.create_device(device_id, authentication=keys)

    def send(self, device_id: str, **members: object) -> None:
        answer = self.https.request("POST", f"/muster/v1/c2d/{device_id}", members)
        assert answer.status == 201, answer

    def delivery_count(self, device_id: str) -> int:
        """Of the message that waits, which is abandoned."""
        inbox = f"/devices/{device_id}/messages/devicebound"
        answer = self.https.request("GET", f"{inbox}?api-version=2021-04-12")
        token = answer.headers["etag"].strip('"')
        assert self.https.request("POST", f"{inbox}/{token}/abandon?api-version=2021-04-12").status == 204
        return int(answer.headers["iothub-deliverycount"])

    def is_empty(self, device_id: str) -> bool:
        inbox = f"/devices/{device_id}/messages/devicebound"
        return self.https.request("GET", f"{inbox}?api-version=2021-04-12").status == 204


@pytest.fixture
def back(https: HttpsClient) -> Back:
    return Back(https)


@pytest.fixture
def wire(muster: MusterServer) -> Iterator[Wire]:
    opened = Wire(muster)
    yield opened
    opened.close()


# The SDK for C: a raw resource in its token, the id raw in the path, exact header names, and nothing but 204.


def c_head(muster: MusterServer, device_id: str, method: str, path: str, *headers: str) -> str:
    resource = f"{muster.address}/devices/{device_id}"
    signature = quote(sign(KEY, f"{resource}\n{_FAR}"), safe="")
    return "\n".join(
        [
            f"{method} /devices/{device_id}{path} HTTP/1.1",
            f"Host: {muster.address}",
            f"Authorization: SharedAccessSignature sr={resource}&sig={signature}&se={_FAR}&skn=",
            "Accept: application/json",
            "Connection: Keep-Alive",
            "User-Agent: iothubclient/1.15.0 (native; Linux; x86_64)",
            *headers,
        ]
    )


def test_c_sends_an_event(muster: MusterServer, wire: Wire, back: Back) -> None:
    back.create("c-1")
    headers = (
        "iothub-to: /devices/c-1/messages/events",
        "Content-Type: application/octet-stream",
        "iothub-app-Case: Kept",
        "iothub-messageid: m-1",
        "iothub-contenttype: application/json",
        "Content-Length: 8",
    )
    request = c_head(muster, "c-1", "POST", "/messages/events?api-version=2016-11-14", *headers)
    for _ in range(2):  # the connection is kept
        reply = wire.ask(request, b'{"t":21}')
        assert (reply.status, reply.body) == (204, b"")
    event, _ = back.https.events("c-1", 2)
    assert (event["body"], event["applicationProperties"]) == ({"t": 21}, {"Case": "Kept"})


def test_c_sends_a_batch(muster: MusterServer, wire: Wire, back: Back) -> None:
    back.create("c-2")
    body = (
        b'[{"body":"AQID","properties":{"iothub-app-a":"b"}},'
        b'{"body":"a string","base64Encoded":false,"properties":{"iothub-app-c":"d"}},'
        b'{"body":"","base64Encoded":false}]'
    )
    headers = ("Content-Type: application/vnd.microsoft.iothub.json", f"Content-Length: {len(body)}")
    reply = wire.ask(c_head(muster, "c-2", "POST", "/messages/events?api-version=2016-11-14", *headers), body)
    assert reply.status == 204
    first, second, third = back.https.events("c-2", 3)
    assert (first["body"], first["applicationProperties"]) == ("\1\2\3", {"a": "b"})
    assert (second["body"], second["applicationProperties"]) == ("a string", {"c": "d"})
    assert third["body"] == ""


@pytest.mark.parametrize(
    ("method", "path", "query", "gone"),
    [("DELETE", "", "", True), ("DELETE", "", "&reject", True), ("POST", "/abandon", "", False)],
    ids=["complete", "reject", "abandon"],
)
def test_c_receives(
    muster: MusterServer, wire: Wire, back: Back, method: str, path: str, query: str, gone: bool
) -> None:
    device_id = f"c-3-{method}{len(query)}"
    back.create(device_id)
    inbox = "/messages/devicebound"
    version = "?api-version=2016-11-14"
    empty = wire.ask(c_head(muster, device_id, "GET", inbox + version))
    assert empty.status == 204
    properties = {"color": "red"}
    back.send(
        device_id, messageId="m-1", correlationId="c-1", properties=properties, body="hi",
        contentType="text/plain", contentEncoding="utf-8",
    )  # fmt: skip
    reply = wire.ask(c_head(muster, device_id, "GET", inbox + version))
    assert (reply.status, reply.body) == (200, b"hi")
    names = ("iothub-messageid", "iothub-correlationid", "iothub-app-color", "ContentType", "ContentEncoding")
    assert [reply.headers[name] for name in names] == ["m-1", "c-1", "red", "text/plain", "utf-8"]
    etag = reply.headers["ETag"]
    assert etag[0] == etag[-1] == '"'
    length = ("Content-Length: 0",) if method == "POST" else ()
    target = f"{inbox}/{etag[1:-1]}{path}{version}{query}"
    settled = wire.ask(c_head(muster, device_id, method, target, f"If-Match: {etag}", *length))
    assert (settled.status, settled.body) == (204, b"")
    assert back.is_empty(device_id) == gone


def test_c_asks_for_an_upload_with_a_slash_behind(muster: MusterServer, wire: Wire, back: Back) -> None:
    back.create("c-4")
    for path in ("/files/", "/files/notifications/"):
        reply = wire.ask(c_head(muster, "c-4", "POST", f"{path}?api-version=2016-11-14", "Content-Length: 2"), b"{}")
        assert (reply.status, reply.headers["iothub-errorcode"]) == (400, "DefaultStorageEndpointNotConfigured")


# The SDK for .NET: a capital B, the lock time in the query, an operation in a header, and ``IfMatch``.


def net_head(muster: MusterServer, device_id: str, method: str, path: str, *headers: str) -> str:
    token = create_token(f"{muster.address}/devices/{device_id}", KEY, _FAR)
    return "\n".join(
        [
            f"{method} /devices/{device_id}{path} HTTP/1.1",
            f"Host: {muster.address}",
            f"Authorization: {token}",
            "User-Agent: Microsoft.Azure.Devices.Client/1.42.0",
            "Accept: application/json",
            *headers,
        ]
    )


def test_net_sends_in_chunks(muster: MusterServer, wire: Wire, back: Back) -> None:
    back.create("net-1")
    headers = (
        "iothub-to: /devices/net-1/messages/events",
        "iothub-operation: d2c",
        "iothub-creationtimeutc: 2026-11-23T10:00:00.0000000Z",
        "iothub-app-Level: 3",
        "Transfer-Encoding: chunked",
    )
    request = net_head(muster, "net-1", "POST", "/messages/events?api-version=2020-09-30", *headers)
    reply = wire.ask(request, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    assert (reply.status, reply.body) == (204, b"")
    (event,) = back.https.events("net-1", 1)
    assert (event["body"], event["applicationProperties"]) == ("hello world", {"Level": "3"})
    assert event["systemProperties"]["iothub-creation-time-utc"] == "2026-11-23T10:00:00.0000000Z"
    assert event["systemProperties"]["iothub-operation"] == "d2c"


@pytest.mark.parametrize("way", ["complete", "reject", "abandon"])
def test_net_receives(muster: MusterServer, wire: Wire, back: Back, way: str) -> None:
    device_id = f"net-{way}"
    back.create(device_id)
    back.send(device_id, messageId="m-1", ack="full", expiryTimeUtc="2099-01-01T00:00:00Z", body="hi")
    inbox = "/messages/deviceBound"
    version = "?api-version=2020-09-30"
    target = f"{inbox}{version}&iothub-messagelocktimeout=60"
    reply = wire.ask(net_head(muster, device_id, "GET", target, "iothub-operation: c2d"))
    assert (reply.status, reply.body) == (200, b"hi")
    assert reply.headers["iothub-expiry"] == "01/01/2099 00:00:00"
    assert reply.headers["iothub-ack"] == "full"
    assert reply.headers["iothub-deliverycount"] == "0"
    etag = reply.headers["ETag"]
    target = f"{inbox}/{etag[1:-1]}"
    if way == "abandon":
        request = net_head(
            muster, device_id, "POST", f"{target}/abandon{version}", f"IfMatch: {etag}", "Content-Length: 0"
        )
    else:
        reject = "&reject=true" if way == "reject" else ""
        request = net_head(muster, device_id, "DELETE", f"{target}{version}{reject}", f"If-Match: {etag}")
    assert wire.ask(request).status == 204
    if way == "abandon":
        assert back.delivery_count(device_id) == 1
    else:
        assert back.is_empty(device_id)


# The SDK for Java: names in lower case, ``%3Freject``, one zero byte as a body, and a lock of three minutes.


def java_head(muster: MusterServer, device_id: str, method: str, path: str, *headers: str) -> str:
    token = create_token(f"{muster.address}/devices/{device_id}", KEY, _FAR)
    return "\n".join(
        [
            f"{method} /devices/{device_id}{path} HTTP/1.1",
            f"authorization: {token}",
            "user-agent: com.microsoft.azure.sdk.iot.iot-device-client/2.5.0",
            f"host: {muster.address}",
            "accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
            *headers,
        ]
    )


def test_java_sends_an_event(muster: MusterServer, wire: Wire, back: Back) -> None:
    back.create("java-1")
    headers = (
        "iothub-to: /devices/java-1/messages/events",
        "iothub-app-room: attic",
        "iothub-creation-time-utc: 2026-11-23T10:00:00.0000000Z",
        "iothub-contenttype: application/json",
        "content-type: binary/octet-stream",
        "content-length: 8",
    )
    request = java_head(muster, "java-1", "POST", "/messages/events?api-version=2020-09-30", *headers)
    assert wire.ask(request, b'{"t":21}').status == 204
    (event,) = back.https.events("java-1", 1)
    assert event["systemProperties"]["iothub-creation-time-utc"] == "2026-11-23T10:00:00.0000000Z"


@pytest.mark.parametrize("way", ["complete", "reject", "abandon"])
def test_java_receives(muster: MusterServer, wire: Wire, back: Back, way: str) -> None:
    device_id = f"java-{way}"
    back.create(device_id)
    back.send(device_id, contentType="text/plain", contentEncoding="utf-8", body="hi")
    version = "?api-version=2020-09-30"
    lock = "iothub-messagelocktimeout: 180"
    reply = wire.ask(java_head(muster, device_id, "GET", f"/messages/devicebound{version}", lock))
    assert (reply.status, reply.body) == (200, b"hi")
    assert reply.headers["iothub-contenttype"] == "text/plain"
    assert reply.headers["iothub-contentencoding"] == "utf-8"
    token = reply.headers["ETag"].strip('"')
    target = f"/messages/devicebound/{token}"
    match = f"if-match: {token}"
    if way == "abandon":
        request = java_head(muster, device_id, "POST", f"{target}/abandon{version}", match, "content-length: 1")
        assert wire.ask(request, b"\0").status == 204
        assert back.delivery_count(device_id) == 1
    else:
        reject = "&%3Freject=true" if way == "reject" else ""
        assert wire.ask(java_head(muster, device_id, "DELETE", f"{target}{version}{reject}", match)).status == 204
        assert back.is_empty(device_id)


# The Azure command line as a device: a policy's token, its own spelling of the lock time, ``reject=``.


@pytest.mark.parametrize("way", ["complete", "reject", "abandon"])
def test_the_command_line_receives(muster: MusterServer, wire: Wire, back: Back, way: str) -> None:
    device_id = f"cli-{way}"
    back.create(device_id)
    back.send(device_id, ack="none", properties={"key": "value"}, body="ping")
    version = "?api-version=2019-10-01"

    def head(method: str, path: str, *headers: str) -> str:
        lines = [
            f"{method} /devices/{device_id}/messages/deviceBound{path} HTTP/1.1",
            f"Host: {muster.address}",
            "User-Agent: python-requests/2.31.0",
            "Accept-Encoding: gzip, deflate",
            "Accept: application/json",
            "Connection: keep-alive",
            f"Authorization: {back.https.token()}",
            *headers,
        ]
        return "\n".join(lines)

    reply = wire.ask(head("GET", version, "IotHub-MessageLockTimeout: 60"))
    assert (reply.status, reply.body) == (200, b"ping")
    lower = {name.lower(): value for name, value in reply.headers.items()}
    assert (lower["iothub-ack"], lower["iothub-app-key"]) == ("none", "value")
    token = lower["etag"].strip('"')
    if way == "abandon":
        assert wire.ask(head("POST", f"/{token}/abandon{version}", "Content-Length: 0")).status == 204
    else:
        reject = "&reject=" if way == "reject" else ""
        assert wire.ask(head("DELETE", f"/{token}{version}{reject}", "Content-Length: 0")).status == 204
    assert back.is_empty(device_id) == (way != "abandon")


# curl


def test_curl_waits_for_a_100(muster: MusterServer, wire: Wire, back: Back) -> None:
    back.create("curl-1")
    token = create_token(f"{muster.address}/devices/curl-1", KEY, _FAR)
    lines = [
        "POST /devices/curl-1/messages/events?api-version=2021-04-12 HTTP/1.1",
        f"Host: {muster.address}",
        f"Authorization: {token}",
        "Content-Length: 5",
        "Expect: 100-continue",
        "Content-Type: application/x-www-form-urlencoded",
    ]
    assert wire.ask("\n".join(lines)).status == 100
    wire.write(b"hello")
    assert wire.reply().status == 204
    assert len(back.https.events("curl-1", 1)) == 1


Head = Callable[..., str]


@pytest.mark.parametrize("head", [c_head, net_head, java_head])
def test_a_lost_lock_is_a_412_for_all(muster: MusterServer, wire: Wire, back: Back, head: Head) -> None:
    device_id = f"lost-{head.__name__}"
    back.create(device_id)
    token = "7c5ed1a8-8e64-4f6f-9e07-2a5d1c0a4f10"
    reply = wire.ask(head(muster, device_id, "DELETE", f"/messages/devicebound/{token}?api-version=2020-09-30"))
    assert reply.status == 412
    assert reply.headers["iothub-errorcode"] == "DeviceMessageLockLost"
    assert reply.body.startswith(b'{"Message":"ErrorCode:DeviceMessageLockLost;')
