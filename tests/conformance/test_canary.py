"""The canary: known secrets go through every flow, and are then searched for wherever people look.

Keys, tokens, pass phrases and payloads never stand in a log, a report, an error or a page (DESIGN.md 5). The search
is for the secrets themselves, so it needs no list of places that might print them.
"""

import base64
import http.client
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from tests.support.fix_clients import HttpAnswer, HttpsClient, SdkClient, SdkError
from tests.support.fix_pki import Identity, ec_key, make_certificate, self_signed
from tests.support.fix_server import MusterServer, free_address
from tests.support.raw_mqtt import RawMqtt

from muster.domain.sas import create_token
from muster.wire.mqtt_packets import Connack, Connect, Packet, Publish, Subscribe

PASS_PHRASE = "canary-pass-phrase-4711"
PAYLOAD = "canary-payload-in-a-message"
PROPERTY = "canary-property-of-a-message"
REGISTRATION_PAYLOAD = "canary-payload-of-a-registration"
VERSION = "api-version=2021-04-12"

_PAGES = 200


def key_of(number: int) -> str:
    """A key that stands nowhere else."""
    return base64.b64encode(bytes((number * 31 + index * 7) % 256 for index in range(32))).decode()


@dataclass
class Flow:
    """A server, and what went through it: secrets by what they are, and what was answered."""

    server: MusterServer
    trace: Path
    secrets: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def https(self) -> HttpsClient:
        return HttpsClient(self.server)

    def key(self, what: str) -> str:
        """A new key, which is a secret from now on."""
        key = key_of(len(self.secrets) + 1)
        self.secrets[what] = key
        return key

    def token(self, what: str, resource: str, key: str, policy: str = "", life: int = 3600) -> str:
        """A token, whose signature is a secret from now on."""
        token = create_token(resource, key, int(time.time()) + life, policy)
        self.secrets[f"signature of {what}"] = unquote(token.partition("sig=")[2].partition("&")[0])
        return token

    def ask(self, method: str, target: str, body: object = None, **options: Any) -> HttpAnswer:
        """Ask; what is said of an error is kept for the search."""
        answer = self.https.request(method, target, body, **options)
        if answer.status >= 400:
            self.errors.append(f"{answer.status} {answer.headers} {answer.body.decode()}")
        return answer


@pytest.fixture(scope="module", params=["text", "json"])
def flow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    """Everything went through a server with generated keys that logs and traces all it can."""
    directory, address = tmp_path_factory.mktemp("canary"), free_address()
    trace = directory / "trace"
    options = ["--host-name", address, "--listen", address, "--trace", str(trace)]
    options += ["--log-level", "debug", "--log-format", request.param]
    server = MusterServer(directory, address, *options).start()
    made = Flow(server, trace)
    generated_keys(made)
    with SdkClient(server, "device.py") as device:
        enrollments(made, device)
        connections(made, device)
    misplaced(made)
    requests(made)
    commands(made)
    yield made
    assert server.stop() == 0


def generated_keys(flow: Flow) -> None:
    """Read from a copy: the database itself is the server's alone."""
    assert not flow.server.status["wellKnownIdentity"]
    copy = flow.server.directory / "copy"
    copy.mkdir()
    for file in flow.server.data_directory.glob("muster.db*"):
        shutil.copy(file, copy)
    database = sqlite3.connect(copy / "muster.db")
    rows = database.execute(
        "SELECT name, primary_key, secondary_key FROM hub_policy"
        " UNION ALL SELECT name, primary_key, secondary_key FROM provisioning_policy"
    ).fetchall()
    database.close()
    assert len(rows) == 6
    for name, primary, secondary in rows:
        flow.secrets[f"primary key of {name}"] = primary
        flow.secrets[f"secondary key of {name}"] = secondary
    flow.secrets["private key of the CA"] = pem_body((flow.server.data_directory / "ca.key").read_text())


def pem_body(pem: str) -> str:
    """A line from the middle of a private key."""
    return pem.splitlines()[1]


def enrollments(flow: Flow, device: SdkClient) -> None:
    """By the command line with a file; registered, refused, with the pass phrase and a payload on their way."""
    flow.secrets["pass phrase"] = PASS_PHRASE
    flow.secrets["payload of a registration"] = REGISTRATION_PAYLOAD
    plain = self_signed("canary-1")
    key = ec_key("canary-1")
    locked = Identity(make_certificate("canary-1", key=key), key, pass_phrase=PASS_PHRASE)
    certificate, key_file = locked.write(flow.server.directory, "canary-1")
    flow.secrets["private key of a device"] = pem_body(plain.key_pem.decode())
    flow.secrets["locked private key of a device"] = pem_body(key_file.read_text())
    flow.server.cli("enrollment", "create", "--certificate", str(certificate))
    scope = flow.server.status["provisioningService"]["idScope"]
    registration: dict[str, Any] = {
        "registration_id": "canary-1",
        "id_scope": scope,
        "certificate": str(certificate),
        "key": str(key_file),
        "pass_phrase": PASS_PHRASE,
        "payload": {"canary": REGISTRATION_PAYLOAD},
    }
    results = device.call_all(
        "register",
        [
            registration,
            {**registration, "registration_id": "canary-2"},
            {**registration, "websockets": True},
            {"registration_id": "canary-1", "id_scope": scope},  # with a token of a key, and no certificate
        ],
    )
    assert [isinstance(result, SdkError) for result in results] == [False, True, False, True], results


def connections(flow: Flow, device: SdkClient) -> None:
    """A device with keys: taken over MQTT and over WebSocket, refused, and its messages."""
    flow.secrets["payload of a message"] = PAYLOAD
    flow.secrets["property of a message"] = PROPERTY
    address = flow.server.address
    primary, secondary, wrong = flow.key("primary key"), flow.key("secondary key"), flow.key("wrong key")
    flow.https.create_device("canary-3", authentication=sas(primary, secondary))
    generated = flow.https.create_device("canary-4")["authentication"]["symmetricKey"]
    flow.secrets["generated primary key"] = generated["primaryKey"]
    flow.secrets["generated secondary key"] = generated["secondaryKey"]
    strings = [f"HostName={address};DeviceId=canary-3;SharedAccessKey={key}" for key in (primary, secondary, wrong)]
    strings.append(f"HostName={address};DeviceId=canary-4;SharedAccessKey={generated['primaryKey']}")
    taken = []
    for number, connection_string in enumerate(strings):
        taken.append(is_taken(device, "c", connection_string=connection_string, websockets=number == 1))
        if taken[-1]:
            device.call("send", connection="c", messages=[{"body": PAYLOAD, "properties": {"canary": PROPERTY}}])
            device.call("close", connection="c")
    assert taken == [True, True, False, True]
    resource = f"{address}/devices/canary-3"
    tokens = {
        "a token": flow.token("a token", resource, primary),
        "a token by a wrong key": flow.token("a token by a wrong key", resource, wrong),
        "a token of a policy": flow.token(
            "a token of a policy", resource, flow.secrets["primary key of device"], "device"
        ),
        "a token of an unknown policy": flow.token("a token of an unknown policy", resource, primary, "nobody"),
        "a token of another device": flow.token("a token of another device", f"{address}/devices/other", primary),
    }
    # One after the other: a device has one connection.
    assert [is_taken(device, name, sas_token=token) for name, token in tokens.items()] == [
        True,
        False,
        True,
        False,
        False,
    ]


def is_taken(device: SdkClient, connection: str, **credential: Any) -> bool:
    """Whether the hub took this credential."""
    try:
        device.call("connect", connection=connection, **credential)
    except SdkError:
        return False
    return True


def misplaced(flow: Flow) -> None:
    """Tokens where MQTT wants names."""
    address = flow.server.address
    key = flow.secrets["primary key of device"]
    token = flow.token("a token in place of a name", address, key, "device", life=7200)
    names = quote(token, safe="")
    for client_id, username in (
        ("canary-3", token),
        (token, f"{address}/{token}/?api-version=2021-04-12"),
        (names, f"{address}/{names}/?api-version=2021-04-12"),
        (token, f"{flow.server.status['provisioningService']['idScope']}/registrations/{names}/api-version=2019-03-31"),
    ):
        with RawMqtt(flow.server) as client:
            client.send(Connect(client_id, username=username, password=token.encode()))
            if client.receive(Connack).return_code == 0:
                client.send(Publish(f"devices/{token}/messages/events/".encode(), b"x", 1, 1))
                client.send(Subscribe(1, [(b"$dps/registrations/res/#", 1)]))
                client.send(Publish(b"$dps/registrations/PUT/iotdps-register/?$rid=1", token.encode(), 1, 1))
                client.receive(Packet)
    with RawMqtt(flow.server) as client:
        good = create_token(f"{address}/devices/canary-3", flow.secrets["primary key"], int(time.time()) + 60).encode()
        username = f"{address}/canary-3/?api-version=2021-04-12"
        client.send(Connect("canary-3", username=username, password=good))
        client.receive(Connack)
        client.send(Publish(f"devices/canary-3/{token}".encode(), b"x", 1, 1))
        client.is_closed()


def sas(primary: str, secondary: str) -> dict[str, Any]:
    return {"type": "sas", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}


def requests(flow: Flow) -> None:
    """REST, taken and refused: tokens in every wrong place, keys in bodies that are not understood."""
    address, target = flow.server.address, f"/devices/canary-3?{VERSION}"
    owner = flow.secrets["primary key of iothubowner"]
    wrong = flow.secrets["wrong key"]
    good = flow.token("a good request", address, owner, "iothubowner")
    assert flow.ask("GET", target, authorization=good).status == 200
    for what, authorization in {
        "a request by a wrong key": flow.token("a request by a wrong key", address, wrong, "iothubowner"),
        "an old request": flow.token("an old request", address, owner, "iothubowner", life=-400),
        "a request elsewhere": flow.token("a request elsewhere", "elsewhere", owner, "iothubowner"),
        "a request without a right": flow.token(
            "a request without a right", address, flow.secrets["primary key of device"], "device"
        ),
        "nonsense": f"SharedAccessSignature {owner}",
        "a key alone": owner,
        "a bearer": f"Bearer {owner}",
    }.items():
        assert flow.ask("GET", target, authorization=authorization).status == 401, what
    in_query = flow.token("a token in a query", address, owner, "iothubowner").partition(" ")[2]
    assert flow.ask("GET", f"{target}&{in_query}", authorization=None).status == 401
    assert flow.ask("GET", f"/devices/{quote(in_query, safe='')}?{VERSION}", authorization=None).status == 401
    bad, half = flow.key("key of a body that is refused"), flow.key("half of a pair")
    longer, typo = flow.key("key with more behind"), flow.key("key with a wrong character")
    for body in (
        {"deviceId": "canary-5", "authentication": sas(f"{longer}{longer}{longer}", bad)},
        {"deviceId": "canary-5", "authentication": sas(f"!{typo}", bad)},
        {"deviceId": "canary-5", "authentication": sas(half, "")},
        {"deviceId": "canary-5", "authentication": bad},
        {"deviceId": "canary-5", "authentication": {"symmetricKey": [bad]}},
        {"deviceId": "another", "authentication": sas(bad, bad)},
    ):
        assert flow.ask("PUT", f"/devices/canary-5?{VERSION}", body).status == 400
    identity = self_signed("canary-6")
    flow.secrets["private key in place of a certificate"] = pem_body(identity.key_pem.decode())
    for certificate in (identity.key_pem.decode(), pem_body(identity.key_pem.decode())):
        certificates = {"primary": {"certificate": certificate}}
        attestation = {"type": "x509", "x509": {"clientCertificates": certificates}}
        body = {"registrationId": "canary-6", "attestation": attestation}
        assert flow.ask("PUT", f"/enrollments/canary-6?{VERSION}", body).status == 400
    symmetric = {"type": "symmetricKey", "symmetricKey": {"primaryKey": f"!{bad}", "secondaryKey": bad}}
    body = {"registrationId": "canary-6", "attestation": symmetric}
    assert flow.ask("PUT", f"/enrollments/canary-6?{VERSION}", body).status == 400


def commands(flow: Flow) -> None:
    """The command line: refused by a wrong key, and given a connection string that it cannot read."""
    address, wrong = flow.server.address, flow.secrets["wrong key"]
    for connection_string in (
        f"HostName={address};SharedAccessKeyName=iothubowner;SharedAccessKey={wrong}",
        f"HostName={address};SharedAccessKeyName=iothubowner;Key={wrong}",
        f"SharedAccessKey={wrong}",
        wrong,
    ):
        result = flow.server.cli("device", "list", "--connection-string", connection_string, check=False)
        assert result.returncode != 0
        flow.errors.append(result.stdout + result.stderr)
    flow.errors.append(flow.server.cli("why").stdout)
    flow.errors.append(flow.server.cli("why", "canary-2").stdout)
    flow.errors.append(flow.server.cli("registration", "show", "canary-1").stdout)
    flow.errors.append(flow.server.cli("enrollment", "show", "canary-1").stdout)


def require_clean(flow: Flow, where: str, text: str, *, but: tuple[str, ...] = ()) -> None:
    """None of the secrets stands in ``text``, as it is or percent-encoded."""
    assert text
    for what, secret in flow.secrets.items():
        if what not in but:
            for spelling in {secret, quote(secret, safe=""), quote(secret, safe="").lower(), secret.rstrip("=")}:
                assert spelling not in text, f"{what} stands in {where}"


def test_every_flow_left_what_is_searched(flow: Flow) -> None:
    """A search in nothing finds nothing: the places are full, and the secrets are many."""
    assert len(flow.secrets) > 25
    assert len(flow.errors) > 20
    assert flow.server.log.stat().st_size > 5_000
    assert "canary-1" in flow.server.output
    assert "canary-3" in flow.server.output


def test_the_log(flow: Flow) -> None:
    require_clean(flow, "the log", flow.server.output)


def test_reports(flow: Flow) -> None:
    reports = flow.https.request("GET", "/muster/v1/reports?top=1000")
    assert len(reports.json) > 10
    require_clean(flow, "the reports", reports.body.decode())


def test_error_bodies_and_command_lines(flow: Flow) -> None:
    for text in flow.errors:
        require_clean(flow, text[:200], text)


def test_answers_hold_only_what_they_are_meant_to(flow: Flow) -> None:
    """The registry shows a device's keys, the events their payloads, and nothing shows anything else."""
    own = ("primary key", "secondary key")
    require_clean(flow, "a device", flow.ask("GET", f"/devices/canary-3?{VERSION}").body.decode(), but=own)
    messages = ("payload of a message", "property of a message")
    require_clean(flow, "the events", flow.ask("GET", "/muster/v1/events?top=1000").body.decode(), but=messages)
    for target in (
        f"/twins/canary-3?{VERSION}",
        f"/enrollments/canary-1?{VERSION}",
        f"/registrations/canary-1?{VERSION}",
        "/muster/v1/status",
    ):
        answer = flow.ask("GET", target)
        assert answer.status == 200
        require_clean(flow, target, answer.body.decode())


def pages(flow: Flow) -> Iterator[tuple[str, str]]:
    """Every page of the portal that links lead to, from the address in the banner on."""
    start = flow.server.status["portal"]
    cookie = ""
    waiting, seen = [start], {start}
    while waiting:
        address = waiting.pop(0)
        parts = urlsplit(address)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        headers = {"Cookie": cookie} if cookie else {}
        connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=headers)
        response = connection.getresponse()
        if response.headers.get("Set-Cookie"):
            cookie = response.headers["Set-Cookie"].partition(";")[0]
        location = response.headers.get("Location")
        if response.headers.get_content_type() == "text/event-stream":
            connection.close()
            continue
        text = response.read().decode()
        connection.close()
        yield address, text
        links = re.findall(r"""(?:href|src|hx-get)=["']([^"'#]+)""", text) + ([location] if location else [])
        for link in links:
            target = urljoin(address, link.replace("&amp;", "&"))
            if urlsplit(target).netloc == parts.netloc and target not in seen:
                seen.add(target)
                waiting.append(target)
        assert len(seen) < _PAGES


def test_the_portal(flow: Flow) -> None:
    messages = ("payload of a message", "property of a message")
    visited = dict(pages(flow))
    assert len(visited) > 10
    whole = "".join(visited.values())
    assert "canary-1" in whole
    assert "canary-3" in whole
    for address, text in visited.items():
        if text:
            require_clean(flow, address, text, but=messages)


def test_the_trace(flow: Flow) -> None:
    """It holds what was said, payloads included, without what proves who said it."""
    said: dict[tuple[int, str], bytes] = {}
    for line in flow.trace.read_text().splitlines():
        entry = json.loads(line)
        if "direction" in entry:
            key = (entry["connection"], entry["direction"])
            said[key] = said.get(key, b"") + base64.b64decode(entry["data"])
    assert len(said) > 20
    whole = b"\n".join(said.values()).decode("latin-1")
    assert PAYLOAD in whole
    spoken = ("payload of a message", "property of a message", "payload of a registration")
    # What stands where nothing announces a secret is not known to be one.
    misplaced = (
        "key of a body that is refused",
        "private key in place of a certificate",
    )
    require_clean(flow, "the trace", whole, but=(*spoken, *misplaced))
