"""What is wanted of a CA: an order for one certificate, made from a profile, a name and a key, or a signing request.

Pure: dates, serial numbers and randomness are arguments. Times are microseconds since 1970, UTC. Not here: whether the
order is a good one (``certificate_lint.py``), and signing (``issuance.py``).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509

from muster.pki.certificate_profiles import CertificateProfile
from muster.pki.certificate_request import CertificateRequest, request_problems
from muster.pki.names import NameTextError, extended_subject, name_limits, read_alternative_name
from muster.pki.private_key import Entropy, PublicKey
from muster.pki.problem import AuthorityError, require_none

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_BACKDATED = _DAY
"""How long before now a certificate becomes valid: the clocks of the machines that meet it differ."""
_LATEST = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_SERIAL_NUMBER_BYTES = 20


class Validity(NamedTuple):
    """Both ends belong to it."""

    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateOrder:
    """What is to be certified; ``limits`` are the names that a CA may certify."""

    profile: CertificateProfile
    subject: x509.Name
    public_key: PublicKey
    valid: Validity
    serial_number: int
    alternative_names: tuple[x509.GeneralName, ...] = ()
    limits: x509.NameConstraints | None = None


def new_serial_number(entropy: Entropy) -> int:
    """Positive, and no longer than 20 octets (RFC 5280 4.1.2.2)."""
    return int.from_bytes(entropy(_SERIAL_NUMBER_BYTES)) >> 1 or 1


def moment(microseconds: int) -> datetime:
    """With whole seconds, as certificates have."""
    return _EPOCH + timedelta(seconds=microseconds // _SECOND)


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def validity(now: int, days: int, issuer: x509.Certificate | None = None, *, shorten: bool = True) -> Validity:
    """From a day before ``now`` for ``days`` after it, but not before its CA, and with ``shorten`` not after it either.

    Raises AuthorityError.
    """
    if days < 1:
        raise AuthorityError(f"a certificate lives for at least 1 day, not {days}")
    begin = now // _SECOND * _SECOND
    start, end = begin - _BACKDATED, begin + days * _DAY
    if end > _LATEST:
        raise AuthorityError(f"{days} days from now is beyond the year 9999")
    if issuer is None:
        return Validity(start, end)
    latest = microseconds(issuer.not_valid_after_utc)
    if shorten and latest <= begin:
        raise AuthorityError(f"the CA has expired: its certificate was valid until {issuer.not_valid_after_utc}")
    return Validity(max(start, microseconds(issuer.not_valid_before_utc)), min(end, latest) if shorten else end)


def make_order(
    profile: CertificateProfile,
    common_name: str,
    public_key: PublicKey,
    valid: Validity,
    serial_number: int,
    alternative_names: tuple[x509.GeneralName, ...] = (),
) -> CertificateOrder:
    """An order for what the profile says, under that common name. Raises AuthorityError."""
    try:
        subject = extended_subject(common_name, profile.subject)
        own = (read_alternative_name(common_name),) if profile.host_name else ()
        limits = name_limits(profile.permitted_names, profile.excluded_names)
    except NameTextError as error:
        raise AuthorityError(str(error)) from None
    return CertificateOrder(
        profile=profile,
        subject=subject,
        public_key=public_key,
        valid=valid,
        serial_number=serial_number,
        alternative_names=tuple(dict.fromkeys((*own, *alternative_names))),
        limits=limits,
    )


def order_for_request(
    request: CertificateRequest,
    profile: CertificateProfile,
    common_name: str,
    valid: Validity,
    serial_number: int,
    alternative_names: tuple[x509.GeneralName, ...] = (),
) -> CertificateOrder:
    """An order for what a signing request asks for. Raises AuthorityError with the reasons when it is not fit for that.

    ``common_name`` is the one that is expected in it; ``alternative_names`` come on top of those that it asks for.
    """
    require_none(request_problems(request, profile, common_name))
    assert request.public_key is not None, "else there is a problem"
    wanted = (*request.alternative_names, *alternative_names)
    return make_order(profile, common_name, request.public_key, valid, serial_number, wanted)
