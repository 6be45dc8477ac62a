"""``muster ca init`` and ``intermediate``: make a CA, adopt one that was made elsewhere, or renew its certificate.

Not here: what it issues (``cli/ca_issue.py``), and where it is kept (``muster.ca_directory``).
"""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.ca_adopt import adopt
from muster.cli.ca_facts import read_facts
from muster.cli.ca_options import (
    DEFAULT_CA_DIR,
    CaDir,
    CaKeyOptions,
    Days,
    Force,
    IssuerName,
    Key,
    KeyKind,
    NewKeyOptions,
    Profile,
    Subject,
    ca_directory,
    real_now,
    told,
)
from muster.cli.certificate_facts import certificate_document, certificate_rows
from muster.cli.failure import CommandError
from muster.cli.option_records import with_records
from muster.cli.options import Output
from muster.cli.output import Format, print_json, record_text
from muster.cli.pass_phrase import unlock

if TYPE_CHECKING:
    from cryptography import x509

    from muster.ca_directory import CaDirectory, StoredAuthority
    from muster.pki.certificate_order import CertificateOrder
    from muster.pki.certificate_profiles import CertificateProfile
    from muster.pki.issuance import Issuer
    from muster.pki.private_key import PublicKey

Name = Annotated[str, typer.Argument(help="What the CA is called here; its common name too, without --subject.")]
PathLength = Annotated[
    int | None,
    typer.Option(help="How many further CAs may follow below it; else as the profile says.", min=0, show_default=False),
]
Permit = Annotated[
    list[str] | None,
    typer.Option(
        help="Names it may certify: DNS:plant.example, IP:10.0.0.0/8, DN:O=Contoso; may be given again.",
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Names it may not certify; may be given again.", show_default=False)
]
Renew = Annotated[
    bool, typer.Option("--renew", help="Give a CA that is there a new certificate for its name, key and limits.")
]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the options ask for."""

    name: str
    profile: str
    key: KeyKind | None
    days: int | None
    subject: str | None
    path_length: int | None
    permit: tuple[str, ...]
    exclude: tuple[str, ...]

    @property
    def says_what_is_new(self) -> bool:
        """Whether it asks for more than a name, a profile and dates."""
        return bool(self.key or self.subject or self.path_length is not None or self.permit or self.exclude)


@dataclass(frozen=True)
class CertificateOptions:
    """What the certificate of a CA says, for ``cli/option_records.py``."""

    subject: Subject = None
    key: Key = None
    days: Days = None
    path_length: PathLength = None
    permit: Permit = None
    exclude: Exclude = None

    def wish(self, name: str, profile: str) -> _Wish:
        permit, exclude = tuple(self.permit or ()), tuple(self.exclude or ())
        return _Wish(name, profile, self.key, self.days, self.subject, self.path_length, permit, exclude)


@with_records
def init(
    name: Name = "root",
    *,
    certificate: CertificateOptions,
    profile: Profile = "root-ca",
    import_file: Annotated[
        Path | None,
        typer.Option(
            "--import", help="Adopt a CA made elsewhere: its certificate with those above, or PFX.", show_default=False
        ),
    ] = None,
    import_key: Annotated[
        Path | None, typer.Option(help="Its key, when that is not in the same file.", show_default=False)
    ] = None,
    renew: Renew = False,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    new_key: NewKeyOptions,
    force: Force = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a root CA. With --import and --renew the pass phrase is the one that the key has."""
    secret = new_key.choose()
    wish = certificate.wish(name, profile)
    if import_key is not None and import_file is None:
        raise typer.BadParameter("is the key for --import", param_hint="--import-key")
    if import_file is not None and (renew or wish.days or wish.says_what_is_new):
        raise typer.BadParameter("--import takes a CA as it is: no other options but those for its key")
    _require_renewal(wish, renew=renew)
    with told():
        directory = ca_directory(ca_dir)
        if import_file is not None:
            authority = adopt(directory, name, import_file, import_key, secret, replaces=force)
        elif renew:
            authority = _renew_root(directory, directory.authority(name), wish, secret)
        else:
            authority = _make_root(directory, wish, secret, replaces=force)
    _show(authority, "Next: muster ca intermediate line-a", output)


@with_records
def intermediate(
    name: Name,
    *,
    issuer: IssuerName = None,
    certificate: CertificateOptions,
    profile: Profile = "intermediate-ca",
    renew: Renew = False,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    ca_key: CaKeyOptions,
    new_key: NewKeyOptions,
    force: Force = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a CA below another one: for a factory, a line, or an enrollment group."""
    secret = new_key.choose()
    wish = certificate.wish(name, profile)
    _require_renewal(wish, renew=renew)
    if renew and secret is not None:
        raise typer.BadParameter("--renew does not touch the key: no pass phrase for it")
    with told():
        directory = ca_directory(ca_dir)
        if not renew:
            directory.require_free(name, replace=force)
        above = _above(directory, name, issuer) if renew else directory.choose(issuer, for_ca=True)
        opened = ca_key.open(above)
        if renew:
            authority = _renew_intermediate(directory, directory.authority(name), wish, above, opened)
        else:
            authority = _make_intermediate(directory, wish, above, opened, secret, replaces=force)
    _show(authority, f"Next: muster ca issue dev-01 --issuer {shlex.quote(name)}", output)


# Making


def _make_root(directory: "CaDirectory", wish: _Wish, pass_phrase: str | None, *, replaces: bool) -> "StoredAuthority":
    from muster.pki.issuance import self_sign
    from muster.pki.private_key import make_key, write_private_key

    directory.require_free(wish.name, replace=replaces)
    now, profile = real_now(), _profile(directory, wish)
    key = make_key(wish.key or profile.key, os.urandom)
    certificate = self_sign(_order(wish, profile, key.public_key(), now, None), key)
    with directory.changing():
        stored = directory.add(wish.name, [certificate], write_private_key(key, pass_phrase), replace=replaces)
        stored.record([(wish.name, wish.profile, certificate)], now)
    return stored


def _make_intermediate(
    directory: "CaDirectory",
    wish: _Wish,
    above: "StoredAuthority",
    issuer: "Issuer",
    pass_phrase: str | None,
    *,
    replaces: bool,
) -> "StoredAuthority":
    from muster.ca_directory import NamedOrder
    from muster.pki.private_key import make_key, write_private_key

    now, profile = real_now(), _profile(directory, wish)
    key = make_key(wish.key or profile.key, os.urandom)
    order = _order(wish, profile, key.public_key(), now, issuer.certificate)
    with directory.changing():
        directory.require_free(wish.name, replace=replaces)
        (certificate,) = above.issue([NamedOrder(wish.name, wish.profile, order)], issuer, now)
        chain = (certificate, *issuer.chain)
        return directory.add(wish.name, chain, write_private_key(key, pass_phrase), replace=replaces)


def _profile(directory: "CaDirectory", wish: _Wish) -> "CertificateProfile":
    """The profile with what the options say instead."""
    import msgspec

    from muster.pki.certificate_profiles import find_profile

    profile = find_profile(directory.profiles, wish.profile)
    if not profile.ca:
        raise CommandError(f"the profile {wish.profile!r} is not one for CAs", "see: muster ca issue --help")
    if wish.path_length is not None:
        profile = msgspec.structs.replace(profile, path_length=wish.path_length)
    if wish.permit or wish.exclude:
        profile = msgspec.structs.replace(profile, permitted=wish.permit, excluded=wish.exclude)
    return profile


def _order(
    wish: _Wish,
    profile: "CertificateProfile",
    public_key: "PublicKey",
    now: int,
    issuer: "x509.Certificate | None",
) -> "CertificateOrder":
    from muster.pki.certificate_order import make_order, new_serial_number, validity
    from muster.pki.names import complete_subject

    valid = validity(now, wish.days or profile.days, issuer, shorten=wish.days is None)
    order = make_order(profile, wish.name, public_key, valid, new_serial_number(os.urandom))
    return order if wish.subject is None else replace(order, subject=complete_subject(wish.name, wish.subject))


# Renewing


def _require_renewal(wish: _Wish, *, renew: bool) -> None:
    """Raises typer's usage error."""
    if renew and wish.says_what_is_new:
        raise typer.BadParameter("--renew keeps key, subject and limits: besides it only --days says something new")


def _above(directory: "CaDirectory", name: str, issuer: str | None) -> "StoredAuthority":
    """The CA that signs the new certificate of an intermediate."""
    stored = directory.authority(name)
    if stored.is_root:
        raise CommandError(f"the CA {name!r} is a root", f"renew it with: muster ca init {name} --renew")
    above = directory.parent(stored) if issuer is None else directory.authority(issuer)
    if above is None:
        raise CommandError(f"the CA above {name!r} is not in {directory.path}", "adopt it: muster ca init --import")
    return above


def _renew_root(
    directory: "CaDirectory", stored: "StoredAuthority", wish: _Wish, pass_phrase: str | None
) -> "StoredAuthority":
    from muster.pki.issuance import self_sign

    if not stored.is_root:
        raise CommandError(
            f"the CA {wish.name!r} is no root", f"renew it with: muster ca intermediate {wish.name} --renew"
        )
    opened = unlock(stored.open, pass_phrase, f"the CA {wish.name!r}")
    now = real_now()
    wish = replace(wish, profile=_recorded_profile(directory, stored, wish, stored))
    certificate = self_sign(_renewal(directory, wish, stored, now, None), opened.key)
    with directory.changing():
        stored.record([(wish.name, wish.profile, certificate)], now)
        return directory.renew(stored, [certificate])


def _renew_intermediate(
    directory: "CaDirectory", stored: "StoredAuthority", wish: _Wish, above: "StoredAuthority", issuer: "Issuer"
) -> "StoredAuthority":
    from muster.ca_directory import NamedOrder

    now = real_now()
    wish = replace(wish, profile=_recorded_profile(directory, stored, wish, above))
    order = _renewal(directory, wish, stored, now, issuer.certificate)
    with directory.changing():
        (certificate,) = above.issue([NamedOrder(wish.name, wish.profile, order)], issuer, now)
        return directory.renew(stored, [certificate, *issuer.chain])


def _recorded_profile(
    directory: "CaDirectory", stored: "StoredAuthority", wish: _Wish, journal_of: "StoredAuthority"
) -> str:
    """The profile that it was made with; that of the options when the journal does not know, or it is gone."""
    recorded = [one.profile for one in journal_of.issued() if one.name == stored.name]
    return recorded[-1] if recorded and recorded[-1] in directory.profiles else wish.profile


def _renewal(
    directory: "CaDirectory", wish: _Wish, stored: "StoredAuthority", now: int, issuer: "x509.Certificate | None"
) -> "CertificateOrder":
    """An order for the key, the subject and the limits that the CA has."""
    import msgspec
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from muster.pki.chain_certificate import ChainCertificate
    from muster.pki.name_constraints import read_extension
    from muster.pki.private_key import is_public_key

    old = stored.certificate
    public_key = old.public_key()
    assert is_public_key(public_key), "no other CA is taken into the directory"
    path_length = ChainCertificate(old.public_bytes(Encoding.DER)).path_length
    profile = msgspec.structs.replace(_profile(directory, wish), path_length=path_length)
    order = _order(wish, profile, public_key, now, issuer)
    return replace(order, subject=old.subject, limits=read_extension(old, x509.NameConstraints))


# What is told


def _show(authority: "StoredAuthority", following: str, output: Format) -> None:
    facts = read_facts(authority.certificate)
    encrypted = b"ENCRYPTED" in authority.key_file.read_bytes()
    if output is Format.JSON:
        files = {
            "name": authority.name,
            "certificate": str(authority.certificate_file),
            "key": str(authority.key_file),
            "keyEncrypted": encrypted,
        }
        print_json({**files, **certificate_document(facts)})
        return
    protection = "encrypted" if encrypted else "not encrypted"
    rows = [
        ("CA", authority.name),
        ("Certificate", authority.certificate_file),
        ("Private key", f"{authority.key_file} ({protection})"),
    ]
    print(record_text([*rows, *certificate_rows(facts, real_now())]))
    print(f"\n{following}")
