"""Do the certificates that a device presented lead to an enrollment group, or to the CA of its individual enrollment?

Told as named checks. Those of the device's own certificate are the same as in ``attestation.py``, those of the chain
are in ``chain_checks.py``. Not here: whether a group is enabled. Sources: dps.md 4.1, 4.2, 4.4, 4.5.
"""

from collections.abc import Collection

import msgspec

from muster.domain.attestation import (
    Remedy,
    check_basic_constraints,
    check_common_name,
    check_dates,
    check_extended_key_usage,
    check_key_strength,
    check_registration_id,
    check_version,
    not_presented,
    unreadable,
)
from muster.domain.chain_checks import ChainChecks, issued_certificate, presented
from muster.domain.check_table import shell_word, skipped
from muster.domain.report import Check
from muster.domain.x509_trust import X509Trust
from muster.pki.certificate import CertificateFormatError
from muster.pki.known_revocations import KnownRevocations
from muster.pki.verify import find_chain

_NEEDING_A_CERTIFICATE = ("x509.issuer-known", "x509.chain", "x509.common-name", "x509.not-before", "x509.not-after")


class GroupVerdict(msgspec.Struct, frozen=True):
    """``group_id``: the group that decides, disabled or not, whatever the checks say; None when there is none.

    Whether that group is enabled is left to the caller.
    """

    group_id: str | None
    checks: tuple[Check, ...]


def attest_x509_group(
    chain: tuple[bytes, ...],
    trust: X509Trust,
    registration_id: str,
    now: int,
    revocations: KnownRevocations | None = None,
) -> GroupVerdict:
    """Which group decides about a device, and all checks of it but that the group is enabled (dps.md 4.1, 4.5).

    ``chain`` is the DER that the device sent, its own certificate first; empty when it sent none. ``now`` is in
    microseconds UTC. From the device up, the first certificate that is a group's decides. ``revocations`` are asked
    when they are given.
    """
    rules = check_registration_id(registration_id)
    remedy = issued_certificate(shell_word(registration_id, "NAME"))
    if not chain:
        return GroupVerdict(None, (rules, *_nothing_presented(remedy, "enrollment.group-exists")))
    try:
        found = find_chain(chain, trust.known, now, trust.groups)
    except CertificateFormatError as error:
        return GroupVerdict(None, (rules, presented(chain), unreadable("x509.parses", error, remedy)))
    checks = ChainChecks(chain, found, trust, registration_id, now)
    group = None if found.signing is None else trust.deciding(found.links[found.signing].certificate.der)
    told = (
        rules,
        *checks.of_the_way_up(),
        checks.group_exists(group),
        checks.verified("x509.group-certificate-verified"),
        *checks.of_the_issuers(),
        *check_common_name(checks.own, registration_id, remedy),
        *check_dates(checks.own, now, remedy),
        checks.leaf_is_no_ca(),
        checks.leaf_has_client_auth(),
        check_version(checks.own, remedy),
        check_key_strength(checks.own, remedy, checks.issuers),
        *checks.revocation(revocations),
    )
    return GroupVerdict(None if group is None else group.group_id, told)


def attest_x509_ca_reference(
    chain: tuple[bytes, ...],
    certificates: Collection[bytes],
    trust: X509Trust,
    registration_id: str,
    now: int,
    revocations: KnownRevocations | None = None,
) -> tuple[Check, ...]:
    """The checks of an individual enrollment by CA references or signing certificates (dps.md 4.4).

    ``certificates`` is the DER of what it refers to, verified or not; the rest as for a group. The chain has to go
    through one of them, and that has to be verified or to lead to a verified CA certificate.
    """
    rules = check_registration_id(registration_id)
    remedy = issued_certificate(shell_word(registration_id, "NAME"))
    if not chain:
        return (rules, *_nothing_presented(remedy, "x509.signing-certificate"))
    try:
        found = find_chain(chain, trust.known, now, certificates)
    except CertificateFormatError as error:
        return (rules, presented(chain), unreadable("x509.parses", error, remedy))
    checks = ChainChecks(chain, found, trust, registration_id, now)
    return (
        rules,
        *checks.of_the_way_up(),
        checks.signing_certificate(certificates),
        checks.verified("ca.verified"),
        *checks.of_the_issuers(),
        *check_common_name(checks.own, registration_id, remedy),
        *check_dates(checks.own, now, remedy),
        check_extended_key_usage(checks.own, remedy),
        check_basic_constraints(checks.own, remedy),
        check_version(checks.own, remedy),
        check_key_strength(checks.own, remedy, checks.issuers),
        *checks.revocation(revocations),
    )


def _nothing_presented(remedy: Remedy, *more: str) -> tuple[Check, ...]:
    refused = not_presented("x509.certificate-presented", remedy)
    needing = (*_NEEDING_A_CERTIFICATE, *more)
    return (refused, *(skipped(check_id, "no certificate was presented") for check_id in needing))
