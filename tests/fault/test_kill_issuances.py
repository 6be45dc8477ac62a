"""``kill -9`` while certificates are being issued: every device that had its 202 gets one, and exactly one."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.fix_ca import key, request
from tests.support.fix_clients import HttpAnswer, HttpsClient
from tests.support.fix_server import ID_SCOPE, StartServer

from muster.ca_directory import CaDirectory
from muster.domain.sas import create_token, derive_device_key

KEY = base64.b64encode(bytes(range(32))).decode()
ATTESTATION = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
VERSION = "api-version=2025-07-01-preview"
FAR = 4_000_000_000
ROUNDS = 3
DEVICES = 16


def signed(name: str) -> str:
    return create_token(f"{ID_SCOPE}/registrations/{name}", derive_device_key(KEY, name), FAR, "registration")


def register(https: HttpsClient, name: str) -> str:
    """The operation id, once the server has acknowledged it."""
    csr = base64.b64encode(request(name).public_bytes(Encoding.DER)).decode()
    target = f"/{ID_SCOPE}/registrations/{name}/register?{VERSION}"
    answer = https.request("PUT", target, {"registrationId": name, "csr": csr}, authorization=signed(name))
    assert answer.status == 202, answer
    return str(answer.json["operationId"])


def poll(https: HttpsClient, name: str, operation: str) -> HttpAnswer:
    target = f"/{ID_SCOPE}/registrations/{name}/operations/{operation}?{VERSION}"
    deadline = time.monotonic() + 120
    while (answer := https.request("GET", target, authorization=signed(name))).status == 202:
        assert time.monotonic() < deadline, answer
    return answer


def test_each_certificate_is_issued_once(start_server: StartServer) -> None:
    server = start_server()
    cas = server.data_directory / "ca"
    server.cli("ca", "init", "line-a", "--ca-dir", str(cas))
    HttpsClient(server).enroll_group("line", attestation=ATTESTATION, credentialPolicyName="line-a")
    names = [f"dev-{number:02}" for number in range(DEVICES * ROUNDS)]
    operations: dict[str, str] = {}
    with ThreadPoolExecutor(DEVICES) as pool:
        for turn in range(ROUNDS):
            batch = names[turn * DEVICES : (turn + 1) * DEVICES]
            https = HttpsClient(server)
            operations.update(zip(batch, pool.map(register, repeat(https), batch), strict=True))
            server.kill()
            server.start()

    https = HttpsClient(server)
    issued = {}
    for name, operation in operations.items():
        state = poll(https, name, operation).json["registrationState"]
        assert state["status"] == "assigned", state
        certificate = base64.b64decode(state["issuedCertificateChain"][0])
        assert x509.load_der_x509_certificate(certificate).public_key() == key(name).public_key()
        issued[name] = certificate
    journal = [one for one in CaDirectory(cas).authority("line-a").issued() if one.profile == "device"]
    assert len(journal) == len(names)
    assert {one.name: one.certificate for one in journal} == issued
