"""How the certificates of a CA directory are shown: how long they live, in the colours of a traffic light; and as PEM.

Not here: the commands that show them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from muster.cli.certificate_facts import certificate_document
from muster.cli.output import short_time

if TYPE_CHECKING:
    from cryptography import x509

    from muster.ca_directory import IssuedCertificate
    from muster.pki.certificate import Certificate
    from muster.pki.expiry import State
    from muster.pki.revocation import Revocation


def pem(*certificates: "x509.Certificate") -> bytes:
    """One after the other."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def sent_chain(chain: Sequence["x509.Certificate"]) -> list["x509.Certificate"]:
    """What a device sends: its own certificate and those above, without the root, which whoever verifies has."""
    own, *above = chain
    return [own, *(one for one in above if one.issuer != one.subject)]


def read_facts(certificate: "x509.Certificate | bytes") -> "Certificate":
    """The facts of a certificate that is loaded, or in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from muster.pki.certificate import parse_certificate

    return parse_certificate(certificate if isinstance(certificate, bytes) else certificate.public_bytes(Encoding.DER))


def until(facts: "Certificate") -> str:
    """Its last moment, for people."""
    from muster.pki.certificate import utc_text

    return short_time(utc_text(facts.not_after or 0))


def state_of(facts: "Certificate", now: int, revocation: "Revocation | None", *, replaced: bool) -> "State":
    """How it stands."""
    from muster.pki.expiry import certificate_state

    return certificate_state(
        facts.not_before or 0,
        facts.not_after or 0,
        now,
        is_ca=facts.is_ca is True,
        revoked=revocation is not None,
        replaced=replaced,
    )


def standing_text(state: "State", not_after: int, now: int) -> str:
    """``green: active, 364 days left``."""
    from muster.pki.expiry import LIGHTS, State, days_left

    days = days_left(not_after, now)
    span = f"{abs(days)} {'day' if abs(days) == 1 else 'days'}"
    if state is State.EXPIRED:
        return f"{LIGHTS[state]}: {state} {span} ago"
    ending = "" if state in (State.REVOKED, State.NOT_YET_VALID) else f", {span} left"
    return f"{LIGHTS[state]}: {state}{ending}"


def issued_document(issued: "IssuedCertificate", now: int) -> dict[str, Any]:
    """A certificate of a journal, for programs; times as the service APIs have them."""
    from muster.pki.certificate import utc_text
    from muster.pki.expiry import LIGHTS, days_left

    facts = read_facts(issued.certificate)
    state = state_of(facts, now, issued.revocation, replaced=issued.is_replaced)
    revoked = issued.revocation
    return {
        "name": issued.name,
        "issuer": issued.authority,
        "profile": issued.profile,
        "issuedUtc": utc_text(issued.time),
        "light": LIGHTS[state],
        "state": str(state),
        "daysLeft": days_left(facts.not_after or 0, now),
        "revoked": None if revoked is None else {"timeUtc": utc_text(revoked.time), "reason": revoked.reason},
        **certificate_document(facts),
    }
