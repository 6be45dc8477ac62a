"""Name constraints: for which names a CA may issue certificates (RFC 5280 4.2.1.10).

Judged are the subject, the e-mail addresses in it, and every subject alternative name. A name of a kind that is not
known here is not allowed wherever a constraint of that kind exists.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

Extension = TypeVar("Extension", bound=x509.ExtensionType)


def read_extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """The extension of that kind; None when it is not there. Raises ValueError when the extensions cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from None


def excluded_name(constraints: x509.NameConstraints, certificate: x509.Certificate) -> str | None:
    """The first name of the certificate that the constraints do not allow, for people; None when all are allowed.

    Raises ValueError when the alternative names of the certificate cannot be read.
    """
    permitted, excluded = constraints.permitted_subtrees or (), constraints.excluded_subtrees or ()
    for kind, value in _names(certificate):
        allowed = [base for base in permitted if type(base) is kind]
        inside = not allowed or any(_is_within(value, base, doubtful=False) for base in allowed)
        if not inside or any(type(base) is kind and _is_within(value, base, doubtful=True) for base in excluded):
            return value.rfc4514_string() if isinstance(value, x509.Name) else str(value)
    return None


def _names(certificate: x509.Certificate) -> Iterable[tuple[type[x509.GeneralName], Any]]:
    subject = certificate.subject
    if subject.rdns:
        yield x509.DirectoryName, subject
    for attribute in subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
        yield x509.RFC822Name, attribute.value
    yield from ((type(name), name.value) for name in read_extension(certificate, x509.SubjectAlternativeName) or ())


def _is_within(value: Any, base: x509.GeneralName, *, doubtful: bool) -> bool:
    """Whether a name lies in a subtree of its own kind; ``doubtful`` is the answer when that cannot be told."""
    match base:
        case x509.DNSName():
            return _is_below(value, base.value)
        case x509.IPAddress():
            return isinstance(base.value, IPv4Network | IPv6Network) and value in base.value
        case x509.DirectoryName():
            return list(value.rdns)[: len(base.value.rdns)] == list(base.value.rdns)
        case x509.RFC822Name():
            return _is_mailbox_within(str(value), base.value)
        case x509.UniformResourceIdentifier():
            host = _host(value)
            return _is_host_within(host, base.value) if host else doubtful
    return doubtful


def _is_below(name: str, base: str) -> bool:
    """A base is a DNS name and all below it; with a leading period only those below."""
    name, base = name.lower(), base.lower()
    return not base or name == base or name.endswith(base if base.startswith(".") else f".{base}")


def _is_mailbox_within(mailbox: str, base: str) -> bool:
    """A base is one mailbox, the mailboxes of one host, or with a leading period those of all hosts below."""
    local, _, host = mailbox.rpartition("@")
    if "@" not in base:
        return _is_host_within(host, base)
    wanted_local, _, wanted_host = base.rpartition("@")
    return local == wanted_local and host.lower() == wanted_host.lower()


def _is_host_within(host: str, base: str) -> bool:
    host, base = host.lower(), base.lower()
    return host.endswith(base) if base.startswith(".") else host == base


def _host(uri: str) -> str:
    """The host of a URI; empty when there is none."""
    try:
        return urlsplit(uri).hostname or ""
    except ValueError:
        return ""
