"""The certificate of the TLS ports.

Not here: the CA that issues it, which is the data directory's.
"""

import time
from collections.abc import Sequence

from muster.data_directory import DataDirectory
from muster.frontends.tls.context import ServerTls
from muster.pki.authority import Credential
from muster.server.place import Address, Place


class ServerCertificate:
    """The certificate of the TLS ports, issued by the CA of the data directory at each start and for each new host."""

    def __init__(self, directory: DataDirectory, place: Place) -> None:
        self._directory = directory
        credential = self._issue(place.names, place.addresses)
        self.tls = ServerTls(credential.certificate_pem, credential.key_pem)

    def outside(self, names: Sequence[str], addresses: Sequence[Address]) -> list[str]:
        return self._directory.outside(names, addresses)

    def renew(self, names: Sequence[str], addresses: Sequence[Address]) -> None:
        credential = self._issue(names, addresses)
        self.tls.replace_certificate(credential.certificate_pem, credential.key_pem)

    def _issue(self, names: Sequence[str], addresses: Sequence[Address]) -> Credential:
        """By the real time: clients judge certificates by their own clocks."""
        return self._directory.server_certificate(names, addresses, time.time_ns() // 1000)
