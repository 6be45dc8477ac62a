"""The client against a small scripted server: TLS on loopback, answers from a list."""

import http.server
import json
import socket
import ssl
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from muster.cli.client import Client, StreamedEvent, path, read_stream
from muster.cli.failure import CommandError, RefusedError, UnreachableError
from muster.cli.target import Access, Target
from muster.domain.sas import parse_token, signature_matches
from tests.unit.cli.statuses import SECRET_KEY, WELL_KNOWN_KEY

ACCESS = Access("localhost", "service", SECRET_KEY)
NOW = 1_900_000_000


class ScriptedServer(http.server.ThreadingHTTPServer):
    """Gives the answers of ``script`` by path, the last one again and again; keeps the requests."""

    daemon_threads = True

    def __init__(self, context):
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = context
        self.script = {}
        self.requests = []

    def get_request(self):
        sock, address = super().get_request()
        return self.context.wrap_socket(sock, server_side=True), address

    def handle_error(self, request, client_address):
        """A client that does not like the certificate is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        location = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        answers = self.server.script.get(location, [(404, {"message": "no such route"})])
        status, document = answers.pop(0) if len(answers) > 1 else answers[0]
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Muster-Continuation", "abc")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the names are those of http.server

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem")
    running = ScriptedServer(context)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def make_client(server, certificates):
    def make(**changes):
        values = {
            "provisioning": ACCESS,
            "hub": ACCESS,
            "endpoints": (("127.0.0.1", server.server_port),),
            "ca_file": certificates / "ca.pem",
            "origin": "a test",
        }
        return Client(Target(**{**values, **changes}), clock=lambda: NOW)

    return make


def test_a_request_is_signed_and_its_answer_read(server, make_client):
    server.script = {"/devices/a%2Fb": [(200, {"deviceId": "a/b"})]}
    answer = make_client().request(
        ACCESS,
        "PUT",
        path("devices", "a/b"),
        query={"api-version": "2021-04-12", "top": None},
        body={"x": "ü"},
    )
    assert (answer.status, answer.document) == (200, {"deviceId": "a/b"})
    assert answer.headers["x-muster-continuation"] == "abc"
    method, url, headers, body = server.requests[0]
    assert (method, url) == ("PUT", "/devices/a%2Fb?api-version=2021-04-12")
    assert json.loads(body) == {"x": "ü"}
    assert headers["Content-Type"].startswith("application/json")
    token = parse_token(headers["Authorization"])
    assert (token.resource, token.key_name) == ("localhost", "service")
    assert token.expiry == (NOW + 3600) * 1_000_000
    assert signature_matches(token, [SECRET_KEY])
    assert not signature_matches(token, [WELL_KNOWN_KEY])


def test_an_empty_name_is_told_and_not_sent():
    with pytest.raises(CommandError, match="a name or an id is empty"):
        path("devices", "")


def test_a_port_without_tls_is_told(certificates):
    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=_answer_in_plain_text, args=(plain,))
        thread.start()
        endpoint = ("127.0.0.1", plain.getsockname()[1])
        target = Target(ACCESS, ACCESS, (endpoint,), certificates / "ca.pem", "a test")
        with pytest.raises(UnreachableError, match="does not speak TLS") as caught:
            Client(target, clock=lambda: NOW).request(ACCESS, "GET", "/devices/d")
        thread.join()
    assert "portal" in caught.value.advice


def _answer_in_plain_text(listening):
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def test_an_empty_answer_has_no_document(server, make_client):
    server.script = {"/devices/d": [(204, b"")]}
    assert make_client().request(ACCESS, "DELETE", "/devices/d").document is None


def test_no_key_means_no_authorization(server, make_client):
    server.script = {"/muster/v1/status": [(200, {"version": "1"})]}
    assert make_client().server_status() == {"version": "1"}
    assert "Authorization" not in server.requests[0][2]


def test_a_refusal_tells_code_tracking_id_and_where_to_read_on(server, make_client):
    error = {"errorCode": 404201, "trackingId": "2b5a-1", "message": "Enrollment \x1b[2J not found."}
    server.script = {"/enrollments/x": [(404, error)], "/muster/v1/reports/2b5a-1": [(200, [])]}
    with pytest.raises(RefusedError) as caught:
        make_client().request(ACCESS, "GET", "/enrollments/x")
    assert caught.value.message == "Enrollment \\x1b[2J not found. (404201, tracking id 2b5a-1)"
    assert caught.value.advice == "`muster why 2b5a-1` tells more"
    assert (caught.value.status, caught.value.code, caught.value.tracking_id) == (404, 404201, "2b5a-1")


def test_a_refusal_without_a_report_does_not_send_anyone_to_it(server, make_client):
    server.script = {"/devices/x": [(404, {"Message": "ErrorCode:DeviceNotFound;x", "ExceptionMessage": ""})]}
    with pytest.raises(RefusedError) as caught:
        make_client().request(ACCESS, "GET", "/devices/x")
    assert (caught.value.message, caught.value.advice) == ("DeviceNotFound: x", "")
    assert caught.value.name == "DeviceNotFound"


def test_a_refused_key_says_which_one_it_was(server, make_client):
    server.script = {"/devices": [(401, {"message": "Unauthorized"})]}
    with pytest.raises(RefusedError) as caught:
        make_client().request(ACCESS, "GET", "/devices")
    assert "policy service, from a test" in caught.value.advice
    assert SECRET_KEY not in caught.value.message + caught.value.advice


def test_a_token_is_signed_again_by_the_clock_of_the_server(server, make_client):
    server.script = {
        "/devices": [(401, {"message": "Unauthorized"}), (200, [])],
        "/muster/v1/status": [(200, {"clockOffsetSeconds": 86400})],
    }
    assert make_client().request(ACCESS, "GET", "/devices").document == []
    expiries = [parse_token(request[2]["Authorization"]).expiry for request in (server.requests[0], server.requests[2])]
    assert expiries[1] - expiries[0] == 86_400_000_000


def test_a_known_clock_is_used_at_once(server, make_client):
    server.script = {"/devices": [(200, [])]}
    make_client(clock_offset=-60).request(ACCESS, "GET", "/devices")
    assert parse_token(server.requests[0][2]["Authorization"]).expiry == (NOW + 3540) * 1_000_000


def test_the_second_endpoint_is_tried(server, make_client):
    server.script = {"/devices": [(200, [])]}
    client = make_client(endpoints=(("127.0.0.1", 1), ("127.0.0.1", server.server_port)))
    assert client.request(ACCESS, "GET", "/devices").document == []


def test_nobody_there_is_said_with_what_to_do(make_client):
    client = make_client(endpoints=(("localhost", 1), ("::1", 2)))
    with pytest.raises(UnreachableError) as caught:
        client.request(ACCESS, "GET", "/devices")
    assert "nothing answers on https://localhost:1 and https://[::1]:2" in caught.value.message
    assert "`muster up`" in caught.value.advice


def test_an_untrusted_certificate_is_refused(make_client):
    with pytest.raises(CommandError, match="is not trusted") as caught:
        make_client(ca_file=None).request(ACCESS, "GET", "/devices")
    assert "MUSTER_CA_FILE" in caught.value.advice


def test_a_certificate_for_another_name_is_refused(make_client):
    other = Access("plant.example", "service", SECRET_KEY)
    with pytest.raises(CommandError, match="is not trusted"):
        make_client().request(other, "GET", "/devices")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_read_is_named(make_client, tmp_path, content):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CommandError, match="cannot read the CA certificate"):
        make_client(ca_file=file).request(ACCESS, "GET", "/devices")


def test_a_stream_goes_on_after_its_last_event(server, make_client):
    server.script = {
        "/muster/v1/events": [
            (200, b": keep-alive\n\nid: 1\nevent: event\ndata: one\n\nid: 2\ndata: two\n\n"),
            (200, b"id: 3\ndata: three\n\n"),
        ]
    }
    opened, pauses = [], []
    stream = make_client().stream(
        ACCESS,
        "/muster/v1/events",
        query={"from": "latest", "deviceId": None},
        opened=lambda: opened.append(True),
        pause=pauses.append,
    )
    assert [next(stream).data for _ in range(3)] == ["one", "two", "three"]
    stream.close()
    assert "Last-Event-ID" not in server.requests[0][2]
    assert server.requests[1][2]["Last-Event-ID"] == "2"
    assert parse_qs(urlsplit(server.requests[0][1]).query) == {"from": ["latest"]}
    assert server.requests[0][2]["Accept"] == "text/event-stream"
    assert len(opened) == 2
    assert pauses == [1.0]


def test_a_refused_stream_is_an_error(server, make_client):
    server.script = {"/muster/v1/events": [(401, {"message": "Unauthorized"})]}
    stream = make_client().stream(ACCESS, "/muster/v1/events", query={}, opened=list, pause=print)
    with pytest.raises(RefusedError, match="Unauthorized"):
        next(stream)


def test_a_stream_that_never_flowed_does_not_wait(make_client):
    pauses = []
    client = make_client(endpoints=(("127.0.0.1", 1),))
    with pytest.raises(UnreachableError):
        next(client.stream(ACCESS, "/muster/v1/events", query={}, opened=list, pause=pauses.append))
    assert pauses == []


def test_a_server_that_does_not_come_back_ends_the_stream(server, make_client):
    server.script = {"/muster/v1/events": [(200, b"id: 1\ndata: one\n\n")]}
    pauses = []

    def stop_server(seconds):
        pauses.append(seconds)
        server.shutdown()
        server.server_close()

    stream = make_client().stream(ACCESS, "/muster/v1/events", query={}, opened=list, pause=stop_server)
    assert next(stream).data == "one"
    with pytest.raises(UnreachableError):
        next(stream)
    assert len(pauses) == 31


def test_event_streams_are_read_as_specified():
    lines = [
        b"id: 7\r\n",
        b"data: a\r\n",
        b"data:b\r\n",
        b"retry: 5\r\n",
        b"\r\n",
        b"\r\n",
        b"data: c\r\n",
        b"\r\n",
        b"data: cut",
    ]
    assert list(read_stream(lines)) == [StreamedEvent("7", "a\nb"), StreamedEvent("7", "c")]


def test_segments_of_a_path_are_encoded():
    assert path("devices", "a/b ?#%", "ü") == "/devices/a%2Fb%20%3F%23%25/%C3%BC"
