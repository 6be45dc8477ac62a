"""Which certificates a service knows: those of enrollment groups, and CA certificates; a hub has only these.

The records that chains are judged with, and their index. Not here: the judging (``chain_attestation.py``), and how
groups and CA certificates are kept.
"""

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from muster.domain.check_table import quoted
from muster.pki.certificate import CertificateFormatError
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.verify import KnownCertificates


class X509Group(msgspec.Struct, frozen=True):
    """An X.509 enrollment group: DER of its signing certificates, or of those it refers to; the primary first."""

    group_id: str
    enabled: bool
    certificates: tuple[bytes, ...]


class CaCertificate(msgspec.Struct, frozen=True):
    """A CA certificate of the service, DER; ``verified``: possession was proved (dps.md 7.5)."""

    name: str
    certificate: bytes
    verified: bool


class X509Trust:
    """The groups and CA certificates of one service, ready for chains; make it once after each change.

    A certificate is verified when it is a verified CA certificate, byte by byte.
    """

    def __init__(self, groups: Iterable[X509Group], authorities: Iterable[CaCertificate]) -> None:
        self.groups: dict[bytes, list[X509Group]] = {}
        for group in groups:
            for certificate in group.certificates:
                self.groups.setdefault(certificate, []).append(group)
        uploaded = tuple(authorities)
        self._names = {authority.certificate: authority.name for authority in uploaded}
        self.known = KnownCertificates(
            trusted=_load(authority.certificate for authority in uploaded if authority.verified),
            others=_load((*self.groups, *self._names)),
        )

    def deciding(self, certificate: bytes) -> X509Group:
        """The group with that certificate. Of several a disabled one decides (dps.md 4.5), else the first."""
        return min(self.groups[certificate], key=lambda group: group.enabled)

    def origin(self, certificate: bytes) -> str:
        """What a certificate is known as: ``that of group "line-a"``; empty when it is not known."""
        known = [f"that of group {quoted(group.group_id)}" for group in self.groups.get(certificate, ())[:3]]
        name = self._names.get(certificate)
        return " and ".join(known + ([] if name is None else [f"the CA certificate {quoted(name)}"]))


def _load(certificates: Iterable[bytes]) -> list[ChainCertificate]:
    """Those that can be read; what was uploaded was read then."""
    loaded = (_loaded(certificate) for certificate in certificates)
    return [certificate for certificate in loaded if certificate is not None]


@lru_cache(maxsize=1024)
def _loaded(certificate: bytes) -> ChainCertificate | None:
    """Cached, because a service reads its groups again after each change of one. Never for what a device sent."""
    try:
        return ChainCertificate(certificate)
    except CertificateFormatError:
        return None
