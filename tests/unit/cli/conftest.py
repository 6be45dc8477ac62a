"""A CA and a server's certificate for ``localhost``, in files."""

import time
from ipaddress import ip_address, ip_network

import pytest

from muster.pki.authority import create_authority, issue_server_certificate


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    now = int(time.time()) * 1_000_000
    authority = create_authority(["localhost"], [ip_network("127.0.0.0/8")], now)
    server = issue_server_certificate(authority, ["localhost"], [ip_address("127.0.0.1")], now)
    (directory / "ca.pem").write_bytes(authority.certificate_pem)
    (directory / "server.pem").write_bytes(server.certificate_pem + server.key_pem)
    return directory
