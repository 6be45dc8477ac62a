"""Has a CA taken back a certificate of this device? Told as named checks, by the revocation lists that are there.

Asked only when the service was given lists; the real service has no such check. Not here: reading lists
(``pki/revocation.py``), following them while they change.
"""

from collections.abc import Sequence

from muster.domain.check_table import check, quoted, skipped
from muster.domain.report import Check
from muster.pki.certificate import utc_text
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.known_revocations import CertificateStatus, KnownRevocations, Named
from muster.pki.revocation import HOLD, Revocation, RevocationList, RevocationStatus
from muster.pki.verify import MAXIMUM_PRESENTED

REVOCATION = "x509.revocation"
REVOCATION_LIST = "x509.revocation-list"
DEVICE_REVOCATION = "device.revocation"


class Revocations:
    """The revocation lists of a service while it runs. ``known`` is None as long as it was given none."""

    def __init__(self, known: KnownRevocations | None = None) -> None:
        self.known = known


def check_path(
    revocations: KnownRevocations,
    path: Sequence[ChainCertificate],
    now: int,
    *,
    sent: Sequence[ChainCertificate],
    known: Named,
) -> tuple[Check, ...]:
    """``x509.revocation`` and ``x509.revocation-list`` of a chain that was found; as ``KnownRevocations.judge``."""
    told = revocations.judge(path, now, sent=sent, known=known)
    return (_check_certificates(REVOCATION, told), _check_lists(told))


def check_presented(
    revocations: KnownRevocations, certificates: Sequence[bytes], now: int, *, known: Named | None = None
) -> tuple[Check, ...]:
    """The same for a device that is known by its own certificate, the first of those (DER) that it presented."""
    told = _judge_presented(revocations, certificates, now, known)
    return (_check_certificates(REVOCATION, told), _check_lists(told))


def check_device(revocations: KnownRevocations, certificates: Sequence[bytes], now: int) -> tuple[Check, ...]:
    """``device.revocation`` and ``x509.revocation-list``, of what a device presented to its hub."""
    told = _judge_presented(revocations, certificates, now, None)
    return (_check_certificates(DEVICE_REVOCATION, told), _check_lists(told))


def not_judged(check_id: str, reason: str) -> tuple[Check, ...]:
    """For a device that is refused anyway: who may not come in need not keep the server busy."""
    return (skipped(check_id, reason), skipped(REVOCATION_LIST, reason))


def _judge_presented(
    revocations: KnownRevocations, certificates: Sequence[bytes], now: int, known: Named | None
) -> tuple[CertificateStatus, ...]:
    own, *sent = [revocations.load(one) for one in certificates[:MAXIMUM_PRESENTED]] or [None]
    if own is None:
        return ()
    others = [one for one in sent if one is not None]
    return revocations.judge((own,), now, sent=others, known=known or (lambda _: ()))


def _check_certificates(check_id: str, told: Sequence[CertificateStatus]) -> Check:
    place = next((at for at, one in enumerate(told) if one.finding.revocation is not None), None)
    if place is None:
        return check(check_id, passed=True, detail=_not_revoked(told))
    certificate, finding = told[place]
    revocation, source = finding.revocation, finding.source
    assert revocation is not None, "it is on a list"
    assert source is not None, "it is on a list"
    return check(
        check_id,
        passed=False,
        detail=f"{quoted(certificate.facts.subject)}, serial number {certificate.facts.serial_number}, is revoked since"
        f" {utc_text(revocation.time)}, reason {revocation.reason}, by {_list(source)}",
        fix=_fix(revocation, certificate.facts.serial_number, own=place == 0),
    )


def _fix(revocation: Revocation, serial_number: str, *, own: bool) -> str:
    if revocation.reason == HOLD:
        return f"when it may be used again, lift the hold: muster ca unhold {serial_number}; then: muster ca crl"
    if own:
        return (
            "give the device another key and certificate: muster ca issue NAME; if it is enrolled by its own"
            " certificate, enroll the new one: muster enrollment update NAME --certificate NAME.pem"
        )
    return (
        "issue the device's certificate from a CA that is not revoked: muster ca intermediate NAME; muster ca issue"
        " DEVICE --issuer NAME; and give that CA to the group: muster group update GROUP --certificate NAME.pem"
    )


def _not_revoked(told: Sequence[CertificateStatus]) -> str:
    asked = dict.fromkeys(_list(one.finding.source) for one in told if one.finding.source is not None)
    without = dict.fromkeys(
        quoted(one.certificate.facts.issuer) for one in told if one.finding.status is RevocationStatus.UNKNOWN
    )
    parts = [f"not on {', '.join(asked)}"] if asked else []
    if without:
        parts.append(f"there is no list of {', '.join(without)}")
    return "; ".join(parts) or "there is no list of the CA that issued it"


def _check_lists(told: Sequence[CertificateStatus]) -> Check:
    lists = {id(one.finding.source): one.finding.source for one in told if one.finding.source is not None}
    if not lists:
        return skipped(REVOCATION_LIST, "no list was asked")
    stale = [one for one in told if one.finding.status is RevocationStatus.STALE]
    late = {id(one.finding.source): one.finding.source for one in stale if one.finding.source is not None}
    return check(
        REVOCATION_LIST,
        passed=not late,
        detail="; ".join(f"a newer one was due on {_due(one)} for {_list(one)}" for one in late.values())
        or "; ".join(f"the next one is due on {_due(one)} for {_list(one)}" for one in lists.values()),
        fix="sign a new list: muster ca crl; what a list revokes counts however old it is",
    )


def _due(revocation_list: RevocationList) -> str:
    return "no day" if revocation_list.next_update is None else utc_text(revocation_list.next_update)


def _list(source: RevocationList) -> str:
    """Which list, and where it is."""
    number = "the list" if source.number is None else f"list {source.number}"
    place = f" in {quoted(source.source)}" if source.source else ""
    return f"{number} of {quoted(source.issuer_name)}{place}"
