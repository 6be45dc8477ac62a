"""Certificate profiles: what a kind of certificate has to look like, as data; built-in ones, and those of users.

A profile decides everything but the name, the key and the dates. Not here: making certificates (``issuance.py``) and
holding them against their profile (``certificate_lint.py``).
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from muster.pki import object_identifiers
from muster.pki.names import (
    NameTextError,
    general_name_text,
    read_alternative_name,
    read_constraint,
    read_subject,
)
from muster.pki.private_key import KEY_KINDS

ROOT_CA = "root-ca"
INTERMEDIATE_CA = "intermediate-ca"
DEVICE = "device"
SERVER = "server"
VERIFICATION = "verification"

_KEY_CERT_SIGN = "keyCertSign"
_NEEDING_AGREEMENT = {"encipherOnly", "decipherOnly"}
_LIKE = "like"
_USAGE_IDENTIFIERS = {name: identifier for identifier, name in object_identifiers.EXTENDED_KEY_USAGES.items()}


class ProfileError(ValueError):
    """The profile does not exist, or contradicts itself; the message says what to change."""


class CertificateProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the certificates of one kind have in common.

    ``days`` is how long they are valid, ``key`` the kind of key (of ``KEY_KINDS``), unless something else is asked for.
    ``path_length``: how many further CAs may follow below; None for no limit. ``key_usage`` has the names of RFC 5280;
    keyEncipherment is left out for keys that cannot do it. ``extended_key_usage`` has names or dotted identifiers.
    ``common_name`` is a regular expression for the whole common name; ``subject`` is DN text for what stands above it.
    ``host_name``: the name is an alternative name too. ``alternative_names`` are patterns of what may be asked for,
    such as ``DNS:*.plant.example``; ``{name}`` in them is the name. ``permitted`` and ``excluded`` limit the names that
    a CA may certify. ``crl_urls`` tell where its issuer's revocation list can be had.
    """

    description: str
    days: int
    key: str
    key_usage: tuple[str, ...]
    extended_key_usage: tuple[str, ...] = ()
    ca: bool = False
    path_length: int | None = None
    common_name: str = ".+"
    subject: str = ""
    host_name: bool = False
    alternative_names: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    crl_urls: tuple[str, ...] = ()

    def key_usage_for(self, *, rsa: bool) -> tuple[str, ...]:
        """The key usage of a certificate with an RSA key, or another one."""
        return tuple(name for name in self.key_usage if rsa or name != "keyEncipherment")

    def usage_identifiers(self) -> tuple[ObjectIdentifier, ...]:
        """The extended key usage; empty when there is to be none."""
        return tuple(ObjectIdentifier(_USAGE_IDENTIFIERS.get(name, name)) for name in self.extended_key_usage)

    def takes_common_name(self, name: str) -> bool:
        """Whether a certificate of this kind may have it as its common name."""
        return re.fullmatch(self.common_name, name) is not None

    def takes_alternative_name(self, alternative: x509.GeneralName, name: str) -> bool:
        """Whether a certificate with that common name may have it. Case does not count."""
        text = general_name_text(alternative).lower()
        if self.host_name and text in (f"dns:{name}".lower(), f"ip:{name}".lower()):
            return True
        patterns = (pattern.replace("{name}", _literally(name)).lower() for pattern in self.alternative_names)
        return any(fnmatchcase(text, pattern) for pattern in patterns)

    @property
    def permitted_names(self) -> tuple[x509.GeneralName, ...]:
        """Raises NameTextError; not for a profile that was read or is built in."""
        return tuple(map(read_constraint, self.permitted))

    @property
    def excluded_names(self) -> tuple[x509.GeneralName, ...]:
        """As ``permitted_names``."""
        return tuple(map(read_constraint, self.excluded))


_CA_USAGE = (_KEY_CERT_SIGN, "cRLSign")
_END_ENTITY_USAGE = ("digitalSignature", "keyEncipherment")

PROFILES: Mapping[str, CertificateProfile] = {
    ROOT_CA: CertificateProfile(
        description="a self-signed CA, the anchor of trust",
        days=7300,
        key="ec-p384",
        key_usage=_CA_USAGE,
        ca=True,
    ),
    INTERMEDIATE_CA: CertificateProfile(
        description="a CA for devices: a factory, a line, an enrollment group",
        days=3650,
        key="ec-p256",
        key_usage=_CA_USAGE,
        ca=True,
        path_length=0,
    ),
    DEVICE: CertificateProfile(
        description="a device that registers under its common name",
        days=365,
        key="ec-p256",
        key_usage=_END_ENTITY_USAGE,
        extended_key_usage=(object_identifiers.CLIENT_AUTH,),
        common_name=r"[A-Za-z0-9\-._:,]{1,64}",
        alternative_names=("DNS:{name}",),
    ),
    SERVER: CertificateProfile(
        description="a TLS server under a host name or an address",
        days=397,
        key="ec-p256",
        key_usage=_END_ENTITY_USAGE,
        extended_key_usage=(object_identifiers.SERVER_AUTH,),
        host_name=True,
        alternative_names=("DNS:*", "IP:*"),
    ),
    VERIFICATION: CertificateProfile(
        description="proof of possession of a CA's key: the common name is the verification code",
        days=7,
        key="ec-p256",
        key_usage=("digitalSignature",),
        extended_key_usage=(object_identifiers.CLIENT_AUTH,),
        common_name=r"[A-Za-z0-9]{8,64}",
    ),
}
"""Registration ids are those of dps.md 4.2, verification codes those of dps.md 7.5; browsers and Apple's clients refuse
server certificates of more than 398 days."""


def find_profile(profiles: Mapping[str, CertificateProfile], name: str) -> CertificateProfile:
    """Raises ProfileError, which names the nearest one."""
    try:
        return profiles[name]
    except KeyError:
        raise ProfileError(f"there is no profile {name!r}{_nearest(name, profiles)}") from None


def read_profiles(text: str) -> dict[str, CertificateProfile]:
    """The built-in profiles, and those of a TOML text: a table for each, ``like`` naming the one that it starts from.

    Raises ProfileError.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"it is no TOML: {error}") from None
    profiles = dict(PROFILES)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ProfileError(f"{name!r} stands outside of a table: a profile begins with [NAME]")
        profiles[name] = _read_profile(name, table, profiles)
    return profiles


def _read_profile(name: str, table: dict[str, Any], profiles: Mapping[str, CertificateProfile]) -> CertificateProfile:
    unknown = next((key for key in table if key not in (*CertificateProfile.__struct_fields__, _LIKE)), None)
    if unknown is not None:
        fields = (*CertificateProfile.__struct_fields__, _LIKE)
        raise ProfileError(f"profile {name!r}: there is no {unknown!r}{_nearest(unknown, fields)}")
    values = dict(table)
    like = values.pop(_LIKE, None)
    if like is not None:
        values = {**msgspec.structs.asdict(find_profile(profiles, str(like))), **values}
    try:
        profile = msgspec.convert(values, CertificateProfile)
    except msgspec.ValidationError as error:
        raise ProfileError(f"profile {name!r}: {error}") from None
    problem = profile_problem(profile)
    if problem is not None:
        raise ProfileError(f"profile {name!r}: {problem}")
    return profile


def profile_problem(profile: CertificateProfile) -> str | None:
    """How a profile contradicts itself or the standard; None when it does not."""
    return _value_problem(profile) or _ca_problem(profile)


def _value_problem(profile: CertificateProfile) -> str | None:
    if profile.days < 1:
        return "days has to be 1 or more"
    if profile.key not in KEY_KINDS:
        return f"{profile.key!r} is no kind of key{_nearest(profile.key, KEY_KINDS)}"
    usage = next((one for one in profile.key_usage if one not in object_identifiers.KEY_USAGES), None)
    if usage is not None:
        return f"{usage!r} is no key usage{_nearest(usage, object_identifiers.KEY_USAGES)}"
    if not profile.key_usage_for(rsa=False) or set(profile.key_usage) & _NEEDING_AGREEMENT:
        return "key_usage has to name something that every key can do, and neither encipherOnly nor decipherOnly"
    try:
        profile.usage_identifiers()
    except ValueError:
        return f"extended_key_usage has names ({', '.join(_USAGE_IDENTIFIERS)}) or dotted identifiers"
    try:
        re.compile(profile.common_name)
    except re.error as error:
        return f"common_name is no regular expression: {error}"
    return _name_problem(profile)


def _name_problem(profile: CertificateProfile) -> str | None:
    try:
        if profile.subject:
            read_subject(profile.subject)
        for url in profile.crl_urls:
            read_alternative_name(f"URI:{url}")
        limits = [*profile.permitted_names, *profile.excluded_names]
    except NameTextError as error:
        return str(error)
    return "only a CA can limit names" if limits and not profile.ca else None


def _ca_problem(profile: CertificateProfile) -> str | None:
    if profile.ca:
        if _KEY_CERT_SIGN not in profile.key_usage:
            return "a CA needs the key usage keyCertSign"
        if profile.path_length is not None and profile.path_length < 0:
            return "path_length has to be 0 or more"
        return None
    if _KEY_CERT_SIGN in profile.key_usage:
        return "only a CA may have the key usage keyCertSign"
    return "only a CA has a path_length" if profile.path_length is not None else None


def _nearest(name: str, names: Mapping[str, Any] | tuple[str, ...]) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]!r}?" if found else f": take one of {', '.join(names)}"


def _literally(name: str) -> str:
    """The name as a pattern that matches nothing else."""
    return re.sub(r"([*?[])", r"[\1]", name)
