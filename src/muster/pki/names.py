"""Names that people write: subjects as DN text, and alternative names as ``DNS:``, ``IP:``, ``URI:`` and so on.

The way from text to ``cryptography``'s objects, and for alternative names back again. Not here: how subjects are shown
(``distinguished_name.py``) and who may have which name.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

LONGEST_COMMON_NAME = 64
"""RFC 5280 appendix A.1; DPS documents the same limit (dps.md 4.2)."""

_LONGEST_TEXT = 4096

_TYPES = {
    "CN": NameOID.COMMON_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "S": NameOID.STATE_OR_PROVINCE_NAME,  # as Windows and .NET write it
    "C": NameOID.COUNTRY_NAME,
    "STREET": NameOID.STREET_ADDRESS,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
    "E": NameOID.EMAIL_ADDRESS,
    "EMAILADDRESS": NameOID.EMAIL_ADDRESS,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "T": NameOID.TITLE,
    "G": NameOID.GIVEN_NAME,
    "SN": NameOID.SURNAME,
}
_ATTRIBUTE = re.compile(
    r"""\s*(?P<type>[A-Za-z]+|\d+(?:\.\d+)+)\s*=\s*
        (?:"(?P<quoted>(?:[^"]|"")*)"|(?P<plain>(?:\\.|[^\\,+;"])*?))
        \s*(?P<end>[,+;]|$)""",
    re.DOTALL | re.VERBOSE,
)
_NEXT_PART = re.compile(r"/(?=[A-Za-z0-9.]+=)")
_ESCAPE = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)", re.DOTALL)
_DNS_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NameTextError(ValueError):
    """The text is not such a name; the message says what is expected."""


def common_name_only(common_name: str) -> x509.Name:
    """Raises NameTextError for one that is empty, too long, or not printable."""
    return x509.Name([_attribute(NameOID.COMMON_NAME, common_name)])


def read_subject(text: str) -> x509.Name:
    """The name that DN text stands for. Raises NameTextError.

    ``CN=dev-01, O="Contoso, Ltd.", C=NL``, most specific part first, with the escapes of RFC 4514 or the quotes of
    .NET; or as OpenSSL has it, in the order of the certificate: ``/C=NL/O=Contoso/CN=dev-01``.
    """
    if len(text) > _LONGEST_TEXT:
        raise NameTextError(f"a subject has at most {_LONGEST_TEXT} characters")
    if text.startswith("/"):
        return x509.Name([_slash_attribute(part) for part in _NEXT_PART.split(text[1:])])
    parts: list[list[x509.NameAttribute[str]]] = [[]]
    for attribute, end in _attributes(text):
        parts[-1].append(attribute)
        if end != "+":
            parts.append([])
    return x509.Name([x509.RelativeDistinguishedName(part) for part in reversed(parts[:-1])])


def extended_subject(common_name: str, text: str) -> x509.Name:
    """The common name, below what DN text says of it: ``O=Contoso, C=NL``, or nothing. Raises NameTextError."""
    above = read_subject(text).rdns if text else ()
    return x509.Name([*above, x509.RelativeDistinguishedName([_attribute(NameOID.COMMON_NAME, common_name)])])


def complete_subject(common_name: str, text: str) -> x509.Name:
    """What DN text says, with the common name below it when the text has none. Raises NameTextError."""
    subject = read_subject(text)
    return subject if common_name_of(subject) is not None else extended_subject(common_name, text)


def common_name_of(name: x509.Name) -> str | None:
    """The most specific common name; None when there is none, or it is no text."""
    found = [attribute.value for attribute in name if attribute.oid == NameOID.COMMON_NAME]
    return found[-1] if found and isinstance(found[-1], str) else None


def _attributes(text: str) -> Iterator[tuple[x509.NameAttribute[str], str]]:
    at, end = 0, ","
    while end:
        found = _ATTRIBUTE.match(text, at)
        if found is None:
            raise NameTextError(f"{text[at : at + 40]!r} is no part of a subject: write CN=dev-01, O=Contoso, C=NL")
        at, end = found.end(), found["end"]
        quoted = found["quoted"]
        value = _unescaped(found["plain"]) if quoted is None else quoted.replace('""', '"')
        yield _attribute(_type(found["type"]), value), end


def _slash_attribute(part: str) -> x509.NameAttribute[str]:
    kind, separator, value = part.partition("=")
    if not (kind and separator):
        raise NameTextError(f"{part!r} is no part of a subject: write /C=NL/O=Contoso/CN=dev-01")
    return _attribute(_type(kind), value)


def _unescaped(value: str) -> str:
    try:
        return _ESCAPE.sub(lambda found: found[2] or bytes.fromhex(found[1].replace("\\", "")).decode(), value)
    except UnicodeDecodeError:
        raise NameTextError(f"{value!r} has escapes that are not UTF-8") from None


def _type(text: str) -> ObjectIdentifier:
    if text[0].isdigit():
        try:
            return ObjectIdentifier(text)
        except ValueError:
            raise NameTextError(f"{text!r} is no object identifier") from None
    try:
        return _TYPES[text.upper()]
    except KeyError:
        raise NameTextError(f"{text!r} is no part of a subject: take one of {', '.join(_TYPES)}") from None


def _attribute(kind: ObjectIdentifier, value: str) -> x509.NameAttribute[str]:
    if not value.isprintable():
        raise NameTextError(f"{value!a} cannot stand in a name: it holds characters that do not print")
    if kind == NameOID.COMMON_NAME and not 0 < len(value) <= LONGEST_COMMON_NAME:
        raise NameTextError(f"a common name has 1 to {LONGEST_COMMON_NAME} characters, not {len(value)}")
    if not value:
        raise NameTextError("a part of a subject is empty")
    try:
        return x509.NameAttribute(kind, value)
    except ValueError as error:
        raise NameTextError(f"{value!r} cannot stand in a name: {error}") from None


# Alternative names, and the limits of a CA


def read_alternative_name(text: str) -> x509.GeneralName:
    """``DNS:host``, ``IP:10.0.0.1``, ``URI:urn:x``, ``email:a@b.c``; without a kind a host or an address.

    Raises NameTextError.
    """
    kind, separator, value = text.partition(":")
    match kind.upper():
        case "DNS" if separator:
            return dns_name(value)
        case "IP" if separator:
            return x509.IPAddress(_address(value))
        case "URI" if separator:
            return _ascii(x509.UniformResourceIdentifier, value)
        case "EMAIL" if separator:
            return _ascii(x509.RFC822Name, value)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return dns_name(text)


def read_constraint(text: str) -> x509.GeneralName:
    """A limit for the names that a CA may certify (RFC 5280 4.2.1.10). Raises NameTextError.

    ``DNS:plant.example`` and all below it, ``IP:10.0.0.0/8``, ``email:plant.example``, ``URI:.plant.example``,
    ``DN:O=Contoso`` and all below it.
    """
    kind, _, value = text.partition(":")
    match kind.upper():
        case "DNS" if value:
            return dns_name(value.removeprefix("."))
        case "IP":
            return x509.IPAddress(_network(value))
        case "EMAIL" if value:
            return _ascii(x509.RFC822Name, value)
        case "URI" if value:
            return _ascii(x509.UniformResourceIdentifier, value)
        case "DN" if value:
            return x509.DirectoryName(read_subject(value))
    raise NameTextError(f"{text!r} is no limit of names: write DNS:plant.example, IP:10.0.0.0/8 or DN:O=Contoso")


def general_name_text(name: x509.GeneralName) -> str:
    """As it is written for the two functions above; other kinds as far as that goes."""
    match name:
        case x509.DNSName():
            return f"DNS:{name.value}"
        case x509.IPAddress():
            return f"IP:{name.value}"
        case x509.UniformResourceIdentifier():
            return f"URI:{name.value}"
        case x509.RFC822Name():
            return f"email:{name.value}"
        case x509.DirectoryName():
            return f"DN:{name.value.rfc4514_string()}"
        case x509.RegisteredID():
            return f"RID:{name.value.dotted_string}"
        case _:
            return "other name"


def name_limits(
    permitted: Sequence[x509.GeneralName], excluded: Sequence[x509.GeneralName]
) -> x509.NameConstraints | None:
    """The extension; None when nothing is limited."""
    if not (permitted or excluded):
        return None
    return x509.NameConstraints(permitted or None, excluded or None)


def dns_name(text: str) -> x509.DNSName:
    """Raises NameTextError for what is no host name in ASCII."""
    if not _DNS_NAME.fullmatch(text) or ".." in text:
        raise NameTextError(f"{text!r} is no DNS name: write it in ASCII, international names as xn--")
    return x509.DNSName(text)


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise NameTextError(f"{text!r} is no IP address") from None


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise NameTextError(f"{text!r} is no network such as 10.0.0.0/8") from None


def _ascii(kind: type[x509.RFC822Name | x509.UniformResourceIdentifier], value: str) -> x509.GeneralName:
    if not (value and value.isascii() and value.isprintable() and " " not in value):
        raise NameTextError(f"{value!r} cannot stand in a certificate: write it in ASCII, without spaces")
    try:
        return kind(value)
    except ValueError as error:
        raise NameTextError(f"{value!r}: {error}") from None
