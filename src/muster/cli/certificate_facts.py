"""What stands in a certificate, as the command line shows it to people and to programs.

Not here: whether it is any good.
"""

from typing import TYPE_CHECKING, Any

from muster.cli.output import short_time

if TYPE_CHECKING:
    from muster.pki.certificate import Certificate


def certificate_rows(facts: "Certificate", now: int) -> list[tuple[str, object]]:
    """The facts for people; ``now`` is in microseconds UTC."""
    from muster.pki.certificate import is_self_signed
    from muster.pki.expiry import days_left

    end = facts.not_after
    left = "" if end is None else f" ({days_left(end, now)} days left)"
    info = certificate_document(facts)
    key = " ".join(str(part) for part in (facts.key_algorithm, facts.curve or facts.key_size) if part)
    return [
        ("Subject", facts.subject),
        ("Issuer", f"{facts.issuer}{' (self-signed)' if is_self_signed(facts) else ''}"),
        ("Serial number", facts.serial_number),
        ("Version", facts.version),
        ("Valid from", short_time(info["notBeforeUtc"])),
        ("Valid until", short_time(info["notAfterUtc"]) + left),
        ("Key", f"{key or 'unknown'}, signed with {facts.signature_hash or 'an unknown hash'}"),
        ("Basic constraints", {True: "CA:TRUE", False: "CA:FALSE", None: "none"}[facts.is_ca]),
        ("Key usage", "none" if facts.key_usage is None else ", ".join(facts.key_usage)),
        (
            "Extended key usage",
            "none" if facts.extended_key_usage is None else ", ".join(facts.extended_key_usage),
        ),
        ("SHA-1", facts.sha1_thumbprint),
        ("SHA-256", facts.sha256_thumbprint),
    ]


def certificate_document(facts: "Certificate") -> dict[str, Any]:
    """The facts for programs; the names of Azure where it has them."""
    import msgspec

    from muster.pki.certificate import certificate_info, is_self_signed

    return {
        **msgspec.to_builtins(certificate_info(facts)),
        "commonName": facts.common_name,
        "selfSigned": is_self_signed(facts),
        "keyAlgorithm": facts.key_algorithm,
        "keySize": facts.key_size,
        "curve": facts.curve,
        "signatureHash": facts.signature_hash,
        "isCa": facts.is_ca,
        "keyUsage": facts.key_usage,
        "extendedKeyUsage": facts.extended_key_usage,
    }
