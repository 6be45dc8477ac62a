"""The directory that holds all of one Muster: its lock, keys, CA, database file, and ``status.json`` for the command
line.

Private from its first moment: 0700, files 0600. Not here: what the database holds.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from muster.config import TOKEN_KEY_FILE, ConfigurationError
from muster.pki.authority import (
    Credential,
    create_authority,
    has_expired,
    issue_server_certificate,
    names_outside,
    permitted,
    renew_authority,
)
from muster.whole_files import write_private

TOKEN_KEY_BYTES = 32

_PRIVATE_DIRECTORY = 0o700

# Where Debian, Red Hat, Alpine and macOS keep the bundle of the system.
_SYSTEM_TRUST = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class DataDirectory:
    """An open, locked data directory. ``close`` gives it back, and removes it when it is ephemeral."""

    def __init__(self, path: Path, *, ephemeral: bool = False) -> None:
        """Create or open it. Raises ConfigurationError when another process uses it, or it cannot be private."""
        self.path = path.absolute()
        self.ephemeral = ephemeral
        self._open()

    @property
    def database(self) -> Path:
        return self.path / "muster.db"

    @property
    def ca_file(self) -> Path:
        return self.path / "ca.pem"

    @property
    def trust_file(self) -> Path:
        return self.path / "trust.pem"

    @property
    def ca_directory(self) -> Path:
        """Where the CAs of devices are; the CA of the server itself is ``ca_file``."""
        return self.path / "ca"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    def _open(self) -> None:
        try:
            self.path.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            self.path.chmod(_PRIVATE_DIRECTORY)
            self._lock: TextIO = (self.path / "lock").open("a")
        except OSError as error:
            raise ConfigurationError(
                f"The data directory {self.path} cannot be used: {error.strerror}. Choose another with --data-dir."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ConfigurationError(
                f"Another muster uses the data directory {self.path}. Stop it, or start this one with another"
                f" --data-dir"
                " (and another --address)."
            ) from None

    def server_certificate(self, names: Sequence[str], addresses: Sequence[Address], now: int) -> Credential:
        """A new certificate for every name and address served, from the stored CA, which is made or widened as needed.

        ``now`` is the real time in microseconds: clients judge certificates by their own clocks.
        """
        authority = self._authority(names, addresses, now)
        certificate = issue_server_certificate(authority, names, addresses, now)
        chain = certificate.certificate_pem + authority.certificate_pem
        self._write_trust(authority.certificate_pem)
        return Credential(chain, certificate.key_pem)

    def outside(self, names: Sequence[str], addresses: Sequence[Address]) -> list[str]:
        """Which of these the CA may not certify as it is, without being widened."""
        return names_outside(self.ca_file.read_bytes(), names, addresses)

    def _authority(self, names: Sequence[str], addresses: Sequence[Address], now: int) -> Credential:
        key_file = self.path / "ca.key"
        networks = _networks(addresses)
        if key_file.exists() and self.ca_file.exists():
            stored = Credential(self.ca_file.read_bytes(), key_file.read_bytes())
            outside = names_outside(stored.certificate_pem, names, addresses)
            if not outside and not has_expired(stored.certificate_pem, now):
                return stored
            # What it was allowed to certify stays: a start under another name takes nothing from earlier ones.
            old_names, old_networks = permitted(stored.certificate_pem) or ([], [])
            authority = renew_authority(
                stored, [*dict.fromkeys((*old_names, *names))], [*dict.fromkeys((*old_networks, *networks))], now
            )
        else:
            authority = create_authority(names, networks, now)
        write_private(key_file, authority.key_pem)
        write_private(self.ca_file, authority.certificate_pem)
        return authority

    def _write_trust(self, ca: bytes) -> None:
        """The trust in force on this machine and our CA: so pip and git still work where SSL_CERT_FILE points to it."""
        write_private(self.trust_file, self._trust_in_force() + ca)

    def _trust_in_force(self) -> bytes:
        candidates = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().openssl_cafile, *_SYSTEM_TRUST]
        for candidate in candidates:
            # A shell that ran ``eval "$(muster env)"`` names our own file, which says nothing of what was there before.
            if candidate and Path(candidate).absolute() != self.trust_file:
                with contextlib.suppress(OSError):
                    return Path(candidate).read_bytes().rstrip() + b"\n"
        return b""

    def token_key(self) -> bytes:
        """The key that signs the bearer tokens of the management plane, 32 bytes; made at the first start."""
        file = self.path / TOKEN_KEY_FILE
        if not file.exists():
            write_private(file, os.urandom(TOKEN_KEY_BYTES))
        key = file.read_bytes()
        if len(key) != TOKEN_KEY_BYTES:
            raise ConfigurationError(
                f"{file} has {len(key)} bytes, and not {TOKEN_KEY_BYTES}: remove it, and a new one is made. Tokens that"
                " were signed with it count no more."
            )
        return key

    def write_status(self, status: Mapping[str, Any]) -> None:
        """What the command line reads to find this server, secrets included."""
        write_private(self.status_file, json.dumps(status, indent=2).encode() + b"\n")

    def close(self) -> None:
        """At a clean stop: nobody is to find this server any more."""
        self.status_file.unlink(missing_ok=True)
        if self.ephemeral:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _networks(addresses: Sequence[Address]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The CA of loopback may speak for all of loopback; otherwise for the addresses served, and no others."""
    networks = []
    for address in addresses:
        if address.is_loopback and address.version == 4:  # noqa: PLR2004 - IPv4
            networks.append(ipaddress.ip_network("127.0.0.0/8"))
        else:
            networks.append(ipaddress.ip_network(address))
    return list(dict.fromkeys(networks))
