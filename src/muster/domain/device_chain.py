"""Does the certificate of a hub's device come from a CA that the hub has verified? Told as named checks.

The checks of the chain are those of ``chain_checks.py``. Sources: hub-device.md 2.4. Not here: thumbprints
(``attestation.py``), enrollments (``chain_attestation.py``).
"""

from muster.domain.attestation import check_dates, check_key_strength, not_presented
from muster.domain.chain_checks import ChainChecks, hub_advice
from muster.domain.check_table import check, quoted, shell_word, skipped
from muster.domain.report import Check
from muster.domain.x509_trust import X509Trust
from muster.pki.certificate import Certificate, CertificateFormatError
from muster.pki.verify import find_chain

_NEEDING_A_CERTIFICATE = ("device.certificate-authority", "device.common-name")


def attest_device_chain(chain: tuple[bytes, ...], trust: X509Trust, name: str, hub: str, now: int) -> tuple[Check, ...]:
    """The checks of a device or module with authentication type ``certificateAuthority``.

    ``chain`` is the DER that was sent, the device's own certificate first; empty when none was. ``name`` is the device
    id, of a module ``device id/module id``: the common name has to be exactly that. ``now`` is in microseconds UTC.
    """
    advice = hub_advice(shell_word(name, "NAME"), shell_word(hub, "HUB"))
    if not chain:
        needing = (skipped(check_id, "no certificate was presented") for check_id in _NEEDING_A_CERTIFICATE)
        return (not_presented("device.certificate-presented", advice), *needing)
    try:
        found = find_chain(chain, trust.known, now)
    except CertificateFormatError as error:
        detail = f"the presented certificate cannot be read: {error}"
        return (check("x509.parses", passed=False, detail=detail, fix=advice.renew),)
    checks = ChainChecks(chain, found, trust, name, now, advice)
    return (
        *checks.of_the_way_up(),
        checks.leads_to_authority(),
        *checks.of_the_issuers(),
        _check_common_name(checks.own, name, advice.make),
        *check_dates(checks.own, now, advice),
        check_key_strength(checks.own, advice, checks.issuers),
    )


def _check_common_name(certificate: Certificate, name: str, make: str) -> Check:
    found = certificate.common_name
    shown = "no common name" if found is None else f"common name {quoted(found)}"
    return check(
        "device.common-name",
        passed=found == name,
        detail=f"{shown}, the device connects as {quoted(name)} (ids are case-sensitive)",
        fix=f"a certificate for this id is needed: {make}; or connect under the id that the certificate has",
    )
