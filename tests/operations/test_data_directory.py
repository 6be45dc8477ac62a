"""The data directory: private, locked, and with a CA that keeps what it was allowed to certify."""

import ipaddress
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from muster.config import ConfigurationError
from muster.data_directory import DataDirectory
from muster.domain.timestamp import DAY
from muster.pki.authority import names_outside, permitted

NOW = 1_790_000_000_000_000
LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_private_even_with_an_open_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = DataDirectory(tmp_path / "a" / "data")
        directory.server_certificate(("localhost",), LOOPBACK, NOW)
        directory.write_status({"key": "secret"})
        directory.token_key()
    finally:
        os.umask(before)
    assert mode(directory.path) == 0o700
    private = ["ca.key", "ca.pem", "trust.pem", "status.json", "token.key"]
    assert {name: mode(directory.path / name) for name in private} == dict.fromkeys(private, 0o600)
    directory.close()


def test_the_token_key_is_made_once(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    key = directory.token_key()
    assert len(key) == 32
    assert directory.token_key() == key
    directory.close()
    again = DataDirectory(tmp_path)
    assert again.token_key() == key
    again.close()
    other = DataDirectory(tmp_path / "other")
    assert other.token_key() != key
    other.close()


def test_a_token_key_of_another_length_is_refused(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    (tmp_path / "token.key").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="remove it"):
        directory.token_key()
    directory.close()


def test_an_open_directory_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=0o755)
    DataDirectory(path).close()
    assert mode(path) == 0o700


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path)
    with pytest.raises(ConfigurationError, match="Another muster uses"):
        DataDirectory(tmp_path)
    first.close()
    DataDirectory(tmp_path).close()


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigurationError, match="--data-dir"):
        DataDirectory(file)


def test_an_ephemeral_one_leaves_nothing(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data", ephemeral=True)
    directory.server_certificate(("localhost",), LOOPBACK, NOW)
    directory.close()
    assert not directory.path.exists()


def test_a_clean_stop_removes_the_status_and_keeps_the_ca(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.server_certificate(("localhost",), LOOPBACK, NOW)
    directory.write_status({})
    ca = directory.ca_file.read_bytes()
    directory.close()
    assert not directory.status_file.exists()
    again = DataDirectory(tmp_path)
    again.server_certificate(("localhost",), LOOPBACK, NOW + DAY)
    assert again.ca_file.read_bytes() == ca
    again.close()


def test_the_ca_is_widened_for_new_names_and_keeps_the_old_ones(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.server_certificate(("localhost",), LOOPBACK, NOW)
    key = (tmp_path / "ca.key").read_bytes()
    directory.server_certificate(("muster.plant.example",), (ipaddress.ip_address("10.0.0.7"),), NOW)
    ca = directory.ca_file.read_bytes()
    assert (tmp_path / "ca.key").read_bytes() == key
    assert names_outside(ca, ("localhost", "muster.plant.example"), (*LOOPBACK, ipaddress.ip_address("10.0.0.7"))) == []
    assert names_outside(ca, ("example.org",), (ipaddress.ip_address("10.0.0.8"),)) == ["example.org", "10.0.0.8"]
    directory.close()


def test_loopback_is_certified_as_a_whole_and_nothing_else(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.server_certificate((), (ipaddress.ip_address("127.0.0.2"),), NOW)
    assert permitted(directory.ca_file.read_bytes()) == ([], [ipaddress.ip_network("127.0.0.0/8")])
    directory.close()


def test_an_expired_ca_is_renewed(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.server_certificate(("localhost",), LOOPBACK, NOW)
    before = directory.ca_file.read_bytes()
    directory.server_certificate(("localhost",), LOOPBACK, NOW + 4000 * DAY)
    assert directory.ca_file.read_bytes() != before
    directory.close()


def test_the_trust_file_holds_what_was_trusted_before_and_our_ca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    other.write_text("-----BEGIN CERTIFICATE-----\nothers\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    directory = DataDirectory(tmp_path / "data")
    directory.server_certificate(("localhost",), LOOPBACK, NOW)
    trust = directory.trust_file.read_bytes()
    assert b"others" in trust
    assert trust.endswith(directory.ca_file.read_bytes())

    # A shell that already trusts us starts us again: what the system trusts is still in it, and we are in it once.
    monkeypatch.setenv("SSL_CERT_FILE", str(directory.trust_file))
    directory.server_certificate(("localhost",), LOOPBACK, NOW)
    again = directory.trust_file.read_bytes()
    assert again.count(directory.ca_file.read_bytes()) == 1
    assert b"others" not in again
    directory.close()


def test_the_systems_trust_survives_a_shell_that_trusts_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "system.pem"
    system.write_text("the system's bundle\n")
    monkeypatch.setattr("muster.data_directory._SYSTEM_TRUST", (str(system),))
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: SimpleNamespace(openssl_cafile="/nowhere"))
    directory = DataDirectory(tmp_path / "data")
    monkeypatch.setenv("SSL_CERT_FILE", str(directory.trust_file))
    for _ in range(2):
        directory.server_certificate(("localhost",), LOOPBACK, NOW)
        assert directory.trust_file.read_bytes().startswith(b"the system's bundle\n")
    directory.close()
