"""HTTPS on the wire: headers, bodies and connections as the clients that cannot be run here use them."""

import http.client
import json
import socket
import ssl

import pytest
from tests.support.fix_clients import HttpsClient
from tests.support.fix_server import MusterServer

DEVICE = "/devices/{}?api-version=2021-04-12"


def exchange(
    server: MusterServer, https: HttpsClient, request: str, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """One request, as it stands; ``AUTH`` in it is a token of the hub's owner. Status, headers and body."""
    text = request.replace("AUTH", https.token()).replace("\n", "\r\n") + "\r\n\r\n"
    context = ssl.create_default_context(cafile=str(server.ca_file))
    with (
        socket.create_connection((server.address, 443), timeout=60) as tcp,
        context.wrap_socket(tcp, server_hostname=server.address) as tls,
    ):
        tls.sendall(text.encode() + body)
        response = http.client.HTTPResponse(tls)
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def test_headers_of_every_answer(https: HttpsClient) -> None:
    answer = https.request("PUT", DEVICE.format("headers"), {"deviceId": "headers"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["server"] == "Microsoft-HTTPAPI/2.0"
    assert answer.headers["date"].endswith(" GMT")
    assert int(answer.headers["content-length"]) == len(answer.body)
    gone = https.request("DELETE", DEVICE.format("headers"), if_match="*")
    assert (gone.status, gone.reason, gone.body) == (204, "No Content", b"")


@pytest.mark.parametrize(
    ("method", "target", "status", "reason"),
    [
        ("GET", DEVICE.format("nobody"), 404, "Not Found"),
        ("GET", "/devices/nobody", 400, "Bad Request"),
        ("POST", DEVICE.format("nobody"), 405, "Method Not Allowed"),
        ("DELETE", DEVICE.format("nobody"), 412, "Precondition Failed"),
    ],
)
def test_reason_phrases(https: HttpsClient, method: str, target: str, status: int, reason: str) -> None:
    """Some clients show nothing else (hub-service.md 1.6)."""
    answer = https.request(method, target)
    assert (answer.status, answer.reason) == (status, reason)


def test_node_sends_chunks_and_a_body_with_get(muster: MusterServer, https: HttpsClient) -> None:
    head = f"\nHost: {muster.address}\nAuthorization: AUTH\nContent-Type: application/json; charset=utf-8\n"
    created = exchange(
        muster,
        https,
        f"PUT {DEVICE.format('chunked')} HTTP/1.1{head}Transfer-Encoding: chunked",
        b'8\r\n{"device\r\nd\r\nId":"chunked"\r\n1\r\n}\r\n0\r\n\r\n',
    )
    assert created[0] == 200, created
    status, _, body = exchange(muster, https, f"GET {DEVICE.format('chunked')} HTTP/1.1{head}Content-Length: 2", b"{}")
    assert status == 200
    assert json.loads(body)["deviceId"] == "chunked"


def test_java_writes_headers_in_its_own_way(muster: MusterServer, https: HttpsClient) -> None:
    request = (
        f"POST {DEVICE.format('java')} HTTP/1.1\nhost: {muster.address}:443\nauthorization: AUTH\n"
        "x-http-method-override: PUT\nrequest-id: 1001\naccept: application/json\ncontent-length: 19"
    )
    status, _, body = exchange(muster, https, request, b'{"deviceId":"java"}')
    assert status == 200
    assert json.loads(body)["deviceId"] == "java"


def test_a_client_that_asks_before_it_sends(muster: MusterServer, https: HttpsClient) -> None:
    """``Expect: 100-continue``: the answer to the request comes behind the one to the question."""
    request = (
        f"PUT {DEVICE.format('expect')} HTTP/1.1\nHost: {muster.address}\nAuthorization: AUTH\n"
        "Expect: 100-continue\nContent-Length: 21"
    )
    status, _, body = exchange(muster, https, request, b'{"deviceId":"expect"}')
    assert status == 200, body


def test_one_connection_for_many_requests(https: HttpsClient) -> None:
    connection = https.connection()
    try:
        connection.connect()
        before = connection.sock
        for number in range(20):
            headers = {"Authorization": https.token()}
            body = json.dumps({"deviceId": f"kept-{number}"}) if number % 2 else None
            connection.request("PUT" if body else "GET", DEVICE.format(f"kept-{number}"), body, headers)
            response = connection.getresponse()
            assert response.status == (200 if body else 404)
            response.read()
        assert connection.sock is before
    finally:
        connection.close()


def test_a_body_that_is_far_too_large(muster: MusterServer, https: HttpsClient) -> None:
    """413, although most of it was not read."""
    connection = https.connection()
    try:
        connection.putrequest("PUT", DEVICE.format("large"))
        connection.putheader("Authorization", https.token())
        connection.putheader("Content-Length", str(50_000_000))
        connection.endheaders()
        connection.send(bytes(1_500_000))
        response = connection.getresponse()
        assert (response.status, response.headers["iothub-errorcode"]) == (413, "MessageTooLarge")
    finally:
        connection.close()
    assert https.request("GET", "/muster/v1/status").status == 200


def test_a_client_that_leaves_in_the_middle(muster: MusterServer, https: HttpsClient) -> None:
    connection = https.connection()
    connection.putrequest("PUT", DEVICE.format("half"))
    connection.putheader("Authorization", https.token())
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b'{"deviceId":')
    connection.close()
    assert https.request("GET", DEVICE.format("half")).status == 404
    assert "Traceback" not in muster.output


@pytest.mark.parametrize("host", ["elsewhere.example.net", "elsewhere.example.net:443", "192.0.2.1"])
def test_names_that_are_not_ours(muster: MusterServer, https: HttpsClient, host: str) -> None:
    """Muster's own routes refuse them; Azure's mean the first hub, as a device that is redirected sends its name."""
    own = exchange(muster, https, f"GET /muster/v1/status HTTP/1.1\nHost: {host}")
    assert own[0] == 421
    azure = exchange(muster, https, f"GET {DEVICE.format('nobody')} HTTP/1.1\nHost: {host}\nAuthorization: AUTH")
    assert azure[0] == 404


def test_every_tls_port_speaks_https(muster: MusterServer) -> None:
    context = ssl.create_default_context(cafile=str(muster.ca_file))
    for port in (443, 8883, 5671):
        connection = http.client.HTTPSConnection(muster.address, port, context=context, timeout=60)
        connection.request("GET", "/muster/v1/status")
        assert connection.getresponse().status == 200
        connection.close()
