"""Does the certificate that a device presented satisfy its enrollment, or its device identity? Told as named checks.

Every check says what was found in the bytes that arrived, and how to put it right; which of them refuse is decided by
the table in ``domain/check_table.py``. Not here: who issued a certificate, which groups and CA references ask
(``domain/chain_attestation.py``); tokens.
"""

from collections.abc import Sequence

import msgspec

from muster.domain.check_table import check, quoted, shell_word, skipped
from muster.domain.registration_id import registration_id_key, registration_id_problem
from muster.domain.report import Check
from muster.pki import object_identifiers
from muster.pki.certificate import (
    Certificate,
    CertificateFormatError,
    parse_certificate,
    sha1_thumbprint,
    sha256_thumbprint,
    utc_text,
)

COMMON_NAME_LENGTH = 64
"""DPS documents it, and no tool makes a longer one (dps.md 4.2, RFC 5280 appendix A.1)."""

_SECOND = 1_000_000
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))
_WEAK_HASHES = ("MD2", "MD5", "SHA-1")
_SMALLEST_SIZES = {object_identifiers.RSA: 2048, object_identifiers.EC: 256}
CLIENT_USAGES = frozenset((object_identifiers.CLIENT_AUTH, object_identifiers.ANY_EXTENDED_KEY_USAGE))
_VERSION_3 = 3
_NEEDING_A_CERTIFICATE = ("x509.thumbprint", "x509.common-name", "x509.not-before", "x509.not-after")


class EnrolledCertificate(msgspec.Struct, frozen=True):
    """What an enrollment keeps to recognise a certificate: its thumbprints, upper hex."""

    sha1_thumbprint: str
    sha256_thumbprint: str


class EnrolledCertificates(msgspec.Struct, frozen=True):
    """The client certificates of an individual enrollment; a slot may be empty (dps.md 4.4)."""

    primary: EnrolledCertificate | None = None
    secondary: EnrolledCertificate | None = None


class Remedy(msgspec.Struct, frozen=True):
    """How a device gets another certificate, for the fixes.

    ``make`` is the command that makes one, ``by_openssl`` is OpenSSL's with what it must not lack, ``renew`` is all
    there is to do for a device that has one already.
    """

    make: str
    by_openssl: str
    renew: str


def own_certificate(name: str) -> Remedy:
    """For a device that is enrolled by its own certificate. ``name`` is a word fit for a command."""
    return Remedy(
        make=f"muster cert device {name}",
        by_openssl="openssl req -x509 ... -extensions usr_cert -addext extendedKeyUsage=clientAuth"
        " (without -extensions it becomes a CA)",
        renew=f"make a new certificate: muster cert device {name} --force; "
        f"enroll it: muster enrollment update {name} --certificate {name}.pem",
    )


def enrolled_certificate(certificate: bytes) -> EnrolledCertificate:
    """The thumbprints of a DER certificate."""
    return EnrolledCertificate(sha1_thumbprint(certificate), sha256_thumbprint(certificate))


def check_registration_id(registration_id: str) -> Check:
    """``registration-id.rules`` (dps.md 4.2)."""
    problem = registration_id_problem(registration_id)
    return check(
        "registration-id.rules",
        passed=problem is None,
        detail=f"registration id {quoted(registration_id)}" + (f": {problem}" if problem else ""),
        fix="give the device another registration id (DPS_REGISTRATIONID), and enroll it under that",
    )


def attest_x509_individual(
    chain: tuple[bytes, ...], enrolled: EnrolledCertificates, registration_id: str, now: int
) -> tuple[Check, ...]:
    """The checks of an X.509 individual enrollment (dps.md 4.2, 4.4).

    ``chain`` is the DER that the device sent, its own certificate first; empty when it sent none. ``now`` is
    in microseconds UTC. The first certificate has to be the primary or the secondary one; no issuer is asked
    for.
    """
    rules = check_registration_id(registration_id)
    name = shell_word(registration_id, "NAME")
    remedy = own_certificate(name)
    if not chain:
        refused = not_presented("x509.certificate-presented", remedy)
        return (rules, refused, *_skipped(*_NEEDING_A_CERTIFICATE))
    presented = check("x509.certificate-presented", passed=True, detail=f"{counted(len(chain))} presented")
    thumbprint = _check_thumbprint(chain, enrolled, name)
    try:
        certificate = parse_certificate(chain[0])
    except CertificateFormatError as error:
        return (rules, presented, unreadable("x509.parses", error, remedy), thumbprint)
    return (
        rules,
        presented,
        check("x509.parses", passed=True, detail=summary(certificate)),
        thumbprint,
        *check_common_name(certificate, registration_id, remedy),
        *check_dates(certificate, now, remedy),
        check_extended_key_usage(certificate, remedy),
        check_basic_constraints(certificate, remedy),
        check_version(certificate, remedy),
        check_key_strength(certificate, remedy),
        _check_chain_sent(chain, certificate, enrolled, registration_id),
    )


def attest_device_thumbprint(
    chain: tuple[bytes, ...],
    primary: str | None,
    secondary: str | None,
    device_id: str,
    now: int,
    update_command: str = "muster device update DEVICE-ID",
) -> tuple[Check, ...]:
    """The checks of a hub device with authentication type ``selfSigned`` (hub-device.md 2.4, interop-facts
    29).

    Thumbprints are SHA-1 or SHA-256, in either slot, in any case; ``chain`` and ``now`` as for an enrollment.
    The common name does not count here. ``update_command`` is the one that gives the identity another certificate.
    """
    remedy = own_certificate(shell_word(device_id, "NAME"))
    if not chain:
        refused = not_presented("device.certificate-presented", remedy)
        return (refused, *_skipped("device.thumbprint", "device.certificate-dates"))
    presented = check("device.certificate-presented", passed=True, detail=f"{counted(len(chain))} presented")
    thumbprint = _check_device_thumbprint(chain[0], primary, secondary, update_command)
    try:
        certificate = parse_certificate(chain[0])
    except CertificateFormatError as error:
        return (presented, thumbprint, unreadable("device.certificate-dates", error, remedy))
    passed, detail, fix = starts(certificate, now, remedy)
    if passed:
        passed, detail, fix = ends(certificate, now, remedy)
    return (presented, thumbprint, check("device.certificate-dates", passed=passed, detail=detail, fix=fix))


def _skipped(*check_ids: str) -> tuple[Check, ...]:
    return tuple(skipped(check_id, "no certificate was presented") for check_id in check_ids)


def not_presented(check_id: str, remedy: Remedy) -> Check:
    """The refusal of a device that sent no certificate."""
    return check(
        check_id,
        passed=False,
        detail="the client sent no certificate in the TLS handshake",
        fix="make the client with a certificate and its key (create_from_x509_certificate, X509Security;"
        " X509_CERT_FILE, X509_KEY_FILE, X509_PASS_PHRASE); a proxy or gateway that ends TLS in between keeps the"
        f" certificate to itself; to make one: {remedy.make}",
    )


def unreadable(check_id: str, error: CertificateFormatError, remedy: Remedy) -> Check:
    """The refusal of a device whose own certificate cannot be read."""
    detail = f"the presented certificate cannot be read: {error}"
    return check(check_id, passed=False, detail=detail, fix=remedy.renew)


def _check_thumbprint(chain: tuple[bytes, ...], enrolled: EnrolledCertificates, name: str) -> Check:
    presented = enrolled_certificate(chain[0])
    for slot, one in (("primary", enrolled.primary), ("secondary", enrolled.secondary)):
        if one == presented:
            detail = f"it is the enrolled {slot} certificate: {_thumbprints(presented)}"
            return check("x509.thumbprint", passed=True, detail=detail)
    position = _enrolled_position(chain, enrolled)
    detail = (
        f"presented {_thumbprints(presented)}; enrolled as primary {_thumbprints(enrolled.primary)}, "
        f"as secondary {_thumbprints(enrolled.secondary)}"
    )
    if position is not None:
        detail += f"; the enrolled certificate is in the chain but is not the leaf: {position} of {len(chain)}"
    return check("x509.thumbprint", passed=False, detail=detail, fix=_thumbprint_fix(chain, position, name))


def _enrolled_position(chain: tuple[bytes, ...], enrolled: EnrolledCertificates) -> int | None:
    """Where behind the leaf the enrolled certificate stands in the chain, counted from 1."""
    wanted = {one for one in (enrolled.primary, enrolled.secondary) if one is not None}
    place = next((at for at, one in enumerate(chain, 1) if enrolled_certificate(one) in wanted), 1)
    return place if place > 1 else None


def _thumbprint_fix(chain: tuple[bytes, ...], position: int | None, name: str) -> str:
    if position is None:
        return (
            f"enroll the presented certificate: muster enrollment update {name} --certificate FILE; "
            "or give the device the enrolled certificate and its key. To compare: muster cert inspect FILE"
        )
    certificate = _parsed(chain[position - 1])
    if certificate is not None and certificate.is_ca:
        return (
            "an individual enrollment holds the device's own certificate, not that of its CA: "
            f"muster enrollment update {name} --certificate FILE, where FILE begins with the device's own; "
            "to enroll by a CA use an enrollment group"
        )
    return "put the device's own certificate first into the file it sends: cat DEVICE.pem CA.pem > CHAIN.pem"


def check_common_name(certificate: Certificate, registration_id: str, remedy: Remedy) -> tuple[Check, ...]:
    """``x509.common-name``, its case if they are equal otherwise, and its length (dps.md 4.2)."""
    name = certificate.common_name
    fits = is_named(certificate, registration_id)
    found = "no common name" if name is None else f"common name {quoted(name)}"
    detail = f"{found}, registration id {quoted(registration_id)}"
    length = len(name or "")
    equal = check("x509.common-name", passed=fits, detail=detail, fix=_common_name_fix(name, registration_id, remedy))
    alike = check(
        "x509.common-name-case",
        passed=name == registration_id,
        detail=detail,
        fix="spell both alike: the hub tells device ids apart by case",
    )
    short = check(
        "x509.common-name-length",
        passed=length <= COMMON_NAME_LENGTH,
        detail=f"the common name has {length} characters, of at most {COMMON_NAME_LENGTH}",
        fix=f"choose a registration id of at most {COMMON_NAME_LENGTH} characters",
    )
    return (equal, alike, short) if fits else (equal, short)


def _common_name_fix(name: str | None, registration_id: str, remedy: Remedy) -> str:
    if len(registration_id) > COMMON_NAME_LENGTH:
        return f"choose a registration id of at most {COMMON_NAME_LENGTH} characters: no common name is longer"
    fix = f"a certificate for this registration id is needed: {remedy.make}"
    if name is not None and registration_id_problem(name) is None:
        fix += f"; or let the device register as {quoted(name)} (DPS_REGISTRATIONID), if that is enrolled"
    return fix


def check_dates(certificate: Certificate, now: int, remedy: Remedy) -> tuple[Check, ...]:
    """``x509.not-before`` and ``x509.not-after``; both ends belong to the validity."""
    begun, begun_detail, begun_fix = starts(certificate, now, remedy)
    lasting, lasting_detail, lasting_fix = ends(certificate, now, remedy)
    return (
        check("x509.not-before", passed=begun, detail=begun_detail, fix=begun_fix),
        check("x509.not-after", passed=lasting, detail=lasting_detail, fix=lasting_fix),
    )


def starts(certificate: Certificate, now: int, remedy: Remedy) -> tuple[bool, str, str]:
    """Whether the certificate is already valid: passed, detail, fix."""
    start = certificate.not_before
    if start is None:
        return False, "the date from which it is valid cannot be read", remedy.renew
    if start <= now:
        return True, f"valid since {utc_text(start)}", ""
    detail = f"valid from {utc_text(start)}, in {span(start - now)}; the clock here says {utc_text(now)}"
    fix = (
        "was the clock of the machine that made it ahead (date -u)? Then set that clock, and "
        f"{remedy.renew}; otherwise wait, or set the clock here"
    )
    return False, detail, fix


def ends(certificate: Certificate, now: int, remedy: Remedy) -> tuple[bool, str, str]:
    """Whether the certificate is still valid: passed, detail, fix."""
    end = certificate.not_after
    if end is None:
        return False, "the date until which it is valid cannot be read", remedy.renew
    if now <= end:
        return True, f"valid until {utc_text(end)}, {span(end - now)} left", ""
    detail = f"expired on {utc_text(end)}, {span(now - end)} ago; the clock here says {utc_text(now)}"
    return False, detail, f"{remedy.renew} (device identity and twin stay as they are)"


def check_extended_key_usage(certificate: Certificate, remedy: Remedy) -> Check:
    """``x509.extended-key-usage``: that there is one, with clientAuth."""
    usages = certificate.extended_key_usage
    shown = "no extended key usage" if usages is None else f"extended key usage {quoted(', '.join(usages))}"
    return check(
        "x509.extended-key-usage",
        passed=usages is not None and not CLIENT_USAGES.isdisjoint(usages),
        detail=shown,
        fix=f"make it with clientAuth: {remedy.by_openssl}; or: {remedy.make}",
    )


def check_basic_constraints(certificate: Certificate, remedy: Remedy) -> Check:
    """``x509.basic-constraints``: that it is no CA certificate."""
    details = {True: "CA:TRUE, a CA certificate", False: "CA:FALSE", None: "no basic constraints, so no CA"}
    return check(
        "x509.basic-constraints",
        passed=certificate.is_ca is not True,
        detail=details[certificate.is_ca],
        fix=f"make an end-entity certificate: {remedy.by_openssl}; or: {remedy.make}",
    )


def check_version(certificate: Certificate, remedy: Remedy) -> Check:
    """``x509.version``: that it is version 3."""
    return check(
        "x509.version",
        passed=certificate.version == _VERSION_3,
        detail=f"X.509 version {certificate.version}",
        fix="openssl x509 -req makes version 1 when it is given no extensions: add -extfile FILE with "
        f"extendedKeyUsage=clientAuth; or: {remedy.make}",
    )


def check_key_strength(certificate: Certificate, remedy: Remedy, issuers: Sequence[Certificate] = ()) -> Check:
    """``x509.key-strength``: that of the device's certificate, and of its ``issuers``."""
    weak = [quoted(issuer.subject) for issuer in issuers if _is_weak(issuer)]
    algorithm, size = certificate.key_algorithm, certificate.key_size
    key = " ".join(filter(None, (algorithm, certificate.curve or (f"{size} bits" if size else None))))
    detail = f"{key or 'unreadable key'}, signed with {certificate.signature_hash or 'unknown hash'}"
    return check(
        "x509.key-strength",
        passed=not (weak or _is_weak(certificate)),
        detail=detail + (f"; weak above it: {', '.join(weak)}" if weak else ""),
        fix=f"take RSA with 2048 bits or more, or P-256, and a SHA-256 signature: {remedy.make}",
    )


def _is_weak(certificate: Certificate) -> bool:
    size = certificate.key_size
    too_short = size is not None and size < _SMALLEST_SIZES.get(certificate.key_algorithm or "", 0)
    return too_short or certificate.signature_hash in _WEAK_HASHES


def _check_chain_sent(
    chain: tuple[bytes, ...], certificate: Certificate, enrolled: EnrolledCertificates, registration_id: str
) -> Check:
    """Information, and a warning when the device's own certificate seems to stand elsewhere than first."""
    wrong = _enrolled_position(chain, enrolled)
    if wrong is None and not is_named(certificate, registration_id):
        named = (at for at, one in enumerate(chain, 1) if is_named(_parsed(one), registration_id))
        wrong = next(named, None)
    detail = f"{counted(len(chain))}, the first is {quoted(certificate.subject)}"
    if wrong is not None:
        detail += f"; the one that was expected first is number {wrong}, {_subject(chain[wrong - 1])}"
    return check(
        "x509.chain-sent",
        passed=wrong is None,
        detail=detail,
        fix="put the device's own certificate first into the file it sends; this enrollment needs no other",
    )


def _check_device_thumbprint(leaf: bytes, primary: str | None, secondary: str | None, update_command: str) -> Check:
    presented = enrolled_certificate(leaf)
    for slot, thumbprint in (("primary", primary), ("secondary", secondary)):
        if (thumbprint or "").upper() in (presented.sha1_thumbprint, presented.sha256_thumbprint):
            detail = f"{_subject(leaf)} has the {slot} thumbprint: {_thumbprints(presented)}"
            return check("device.thumbprint", passed=True, detail=detail)
    return check(
        "device.thumbprint",
        passed=False,
        detail=f"presented {_subject(leaf)}, {_thumbprints(presented)}; "
        f"configured as primary {primary or 'none'}, as secondary {secondary or 'none'}",
        fix="connect with the certificate the device was provisioned with; after a new one was enrolled, "
        f"register again, so that the hub learns it, or tell it: {update_command} --certificate FILE",
    )


def is_named(certificate: Certificate | None, registration_id: str) -> bool:
    if certificate is None or certificate.common_name is None:
        return False
    return registration_id_key(certificate.common_name) == registration_id_key(registration_id)


def _parsed(certificate: bytes) -> Certificate | None:
    try:
        return parse_certificate(certificate)
    except CertificateFormatError:
        return None


def _subject(certificate: bytes) -> str:
    parsed = _parsed(certificate)
    return "a certificate that cannot be read" if parsed is None else quoted(parsed.subject)


def _thumbprints(certificate: EnrolledCertificate | None) -> str:
    if certificate is None:
        return "none"
    return f"SHA-1 {certificate.sha1_thumbprint} SHA-256 {certificate.sha256_thumbprint}"


def summary(certificate: Certificate) -> str:
    issuer = "itself" if certificate.self_issued else quoted(certificate.issuer)
    return f"subject {quoted(certificate.subject)}, issued by {issuer}, serial {certificate.serial_number[:64]}"


def counted(certificates: int) -> str:
    return "1 certificate" if certificates == 1 else f"{certificates} certificates"


def span(microseconds: int) -> str:
    """``3 days``, ``1 hour``: whole units of the largest that fits, for people."""
    seconds = microseconds // _SECOND
    for length, unit in _UNITS:
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{seconds} s"
