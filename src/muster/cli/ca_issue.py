"""``muster ca issue`` and ``sign-csr``: certificates for devices, one or a fleet, by a CA of the directory.

Not here: how they are made and held against their profile (``pki/issuance.py``).
"""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.ca_facts import pem, read_facts, sent_chain, until
from muster.cli.ca_options import (
    DEFAULT_CA_DIR,
    CaDir,
    CaKeyOptions,
    Days,
    Force,
    IssuerName,
    Key,
    NewKeyOptions,
    Out,
    Profile,
    Subject,
    ca_directory,
    read_bytes,
    real_now,
    require_free,
    told,
    write_files,
)
from muster.cli.certificate_facts import certificate_document
from muster.cli.failure import CommandError
from muster.cli.option_records import with_records
from muster.cli.options import Output
from muster.cli.output import Format, print_json, printable, table_text

if TYPE_CHECKING:
    from cryptography import x509

    from muster.ca_directory import CaDirectory, StoredAuthority
    from muster.pki.certificate_order import CertificateOrder, Validity
    from muster.pki.certificate_profiles import CertificateProfile
    from muster.pki.certificate_request import CertificateRequest
    from muster.pki.issuance import Issuer
    from muster.pki.private_key import PrivateKey
    from muster.whole_files import NewFile

_MOST = 10_000

AlternativeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--san", help="An alternative name: DNS:.., IP:.., URI:.., email:..; may be given again.", show_default=False
    ),
]


@with_records
def issue(
    name: Annotated[
        str | None, typer.Argument(help="Registration id or host name; the common name.", show_default=False)
    ] = None,
    *,
    csr: Annotated[
        Path | None, typer.Option(help="A signing request with the device's own key.", show_default=False)
    ] = None,
    key: Key = None,
    profile: Profile = "device",
    days: Days = None,
    subject: Subject = None,
    san: AlternativeNames = None,
    count: Annotated[int, typer.Option(help="How many to issue, numbered behind --prefix.", min=1, max=_MOST)] = 1,
    prefix: Annotated[
        str | None, typer.Option(help="What the names of a fleet begin with, as dev- in dev-01.", show_default=False)
    ] = None,
    start: Annotated[int, typer.Option(help="The first number of a fleet.", min=0)] = 1,
    issuer: IssuerName = None,
    out: Out = Path(),
    pfx: Annotated[bool, typer.Option("--pfx", help="NAME.pfx with key and chain too; needs a pass phrase.")] = False,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    ca_key: CaKeyOptions,
    new_key: NewKeyOptions,
    force: Force = False,
    output: Output = Format.TABLE,
) -> None:
    """Issue a certificate, or those of a fleet: NAME.pem, NAME.fullchain.pem as devices send it, and NAME.key.

    A name that has one already gets another; the old one stays in the journal.
    """
    names = _names(name, prefix, count, start)
    secret = new_key.choose()
    if csr is not None and (name is None or key is not None or secret is not None):
        raise typer.BadParameter("with --csr give a NAME; the key is the device's: no --key, no pass phrase")
    if pfx and secret is None:
        raise typer.BadParameter("--pfx needs a pass phrase: --pass-phrase-file or --ask, and no --csr")
    suffixes = (".pem", ".fullchain.pem", *(() if csr else (".key",)), *((".pfx",) if pfx else ()))
    require_free((out / f"{one}{suffix}" for one in names for suffix in suffixes), force=force)
    wish = _Wish(profile, days, subject, tuple(san or ()))
    with told():
        desk = _Desk.open(ca_directory(ca_dir), issuer, wish, ca_key)
        if csr is not None:
            made = [desk.for_request(_read_request(csr), names[0], out)]
        else:
            made = desk.for_names(names, key or desk.profile.key, secret, out, pfx=pfx)
    desk.hand_over(made, key or desk.profile.key, force=force, output=output)


@with_records
def sign_csr(
    file: Annotated[Path, typer.Argument(help="A signing request: PEM, DER or base64.", show_default=False)],
    *,
    profile: Profile = "device",
    days: Days = None,
    subject: Subject = None,
    san: AlternativeNames = None,
    issuer: IssuerName = None,
    out: Out = Path(),
    ca_dir: CaDir = DEFAULT_CA_DIR,
    ca_key: CaKeyOptions,
    force: Force = False,
    output: Output = Format.TABLE,
) -> None:
    """Issue the certificate that a signing request asks for, under the common name in it.

    Taken from it are the key, the common name, and alternative names that the profile allows; nothing else.
    """
    with told():
        request = _read_request(file)
        name = request.common_name
        if name is None:
            raise CommandError(f"{file} has no common name", "make the request again, with the subject CN=NAME")
        _require_file_name(name)
        require_free((out / f"{name}{suffix}" for suffix in (".pem", ".fullchain.pem")), force=force)
        wish = _Wish(profile, days, subject, tuple(san or ()))
        desk = _Desk.open(ca_directory(ca_dir), issuer, wish, ca_key)
        made = desk.for_request(request, name, out)
    desk.hand_over([made], "", force=force, output=output)


def _names(name: str | None, prefix: str | None, count: int, start: int) -> list[str]:
    if (name is None) == (prefix is None) or (name is not None and count > 1):
        raise typer.BadParameter("give a NAME, or --prefix and --count for a fleet")
    width = max(2, len(str(start + count - 1)))
    names = [name] if name is not None else [f"{prefix}{number:0{width}}" for number in range(start, start + count)]
    for one in names:
        _require_file_name(one)
    return names


def _require_file_name(name: str) -> None:
    """The name becomes that of files: it must not lead elsewhere."""
    if not name or not name.isprintable() or "/" in name or name.startswith("."):
        raise CommandError(f"{printable(name)!r} cannot be a name: it becomes that of files")


def _read_request(file: Path) -> "CertificateRequest":
    from muster.pki.certificate_request import read_certificate_request

    return read_certificate_request(read_bytes(file))


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the options ask for, the same for each certificate of a fleet."""

    profile: str
    days: int | None
    subject: str | None
    alternative_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """A certificate and its files."""

    name: str
    certificate: "x509.Certificate"
    files: tuple["NewFile", ...]


@dataclass(frozen=True, slots=True)
class _Desk:
    """Where a CA takes orders: all of them for one profile. Its methods raise what ``told`` tells."""

    directory: "CaDirectory"
    authority: "StoredAuthority"
    issuer: "Issuer"
    wish: _Wish
    profile: "CertificateProfile"
    alternative_names: tuple["x509.GeneralName", ...]

    @classmethod
    def open(cls, directory: "CaDirectory", issuer: str | None, wish: _Wish, ca_key: CaKeyOptions) -> "_Desk":
        from muster.pki.certificate_profiles import find_profile
        from muster.pki.names import read_alternative_name

        profile = find_profile(directory.profiles, wish.profile)
        if profile.ca:
            raise CommandError(f"the profile {wish.profile!r} is one for CAs", "see: muster ca intermediate --help")
        alternative_names = tuple(map(read_alternative_name, wish.alternative_names))
        authority = directory.choose(issuer)
        return cls(directory, authority, ca_key.open(authority), wish, profile, alternative_names)

    def for_names(
        self, names: Sequence[str], key_kind: str, pass_phrase: str | None, out: Path, *, pfx: bool
    ) -> list[_Made]:
        """Certificates with new keys."""
        from muster.pki.certificate_order import make_order, new_serial_number
        from muster.pki.private_key import make_key

        now, valid = real_now(), self._valid()
        keys = [make_key(key_kind, os.urandom) for _ in names]
        orders = [
            make_order(
                self.profile, name, key.public_key(), valid, new_serial_number(os.urandom), self.alternative_names
            )
            for name, key in zip(names, keys, strict=True)
        ]
        certificates = self._sign(zip(names, orders, strict=True), now)
        return [
            _Made(
                name,
                one,
                (*self._public_files(out, name, one), *self._key_files(out, name, one, key, pass_phrase, pfx=pfx)),
            )
            for name, one, key in zip(names, certificates, keys, strict=True)
        ]

    def for_request(self, request: "CertificateRequest", name: str, out: Path) -> _Made:
        """A certificate with the key of a signing request, which has to be for that name."""
        from muster.pki.certificate_order import new_serial_number, order_for_request

        number = new_serial_number(os.urandom)
        order = order_for_request(request, self.profile, name, self._valid(), number, self.alternative_names)
        (certificate,) = self._sign([(name, order)], real_now())
        return _Made(name, certificate, tuple(self._public_files(out, name, certificate)))

    def _valid(self) -> "Validity":
        from muster.pki.certificate_order import validity

        days = self.wish.days
        return validity(real_now(), days or self.profile.days, self.issuer.certificate, shorten=days is None)

    def _sign(self, orders: Iterable[tuple[str, "CertificateOrder"]], now: int) -> list["x509.Certificate"]:
        from muster.ca_directory import NamedOrder

        named = [NamedOrder(name, self.wish.profile, self._with_subject(name, order)) for name, order in orders]
        with self.directory.changing():
            return self.authority.issue(named, self.issuer, now)

    def _with_subject(self, name: str, order: "CertificateOrder") -> "CertificateOrder":
        from muster.pki.names import common_name_of, complete_subject

        if self.wish.subject is None:
            return order
        subject = complete_subject(name, self.wish.subject)
        if common_name_of(subject) != name:
            raise CommandError(f"the common name in --subject is {common_name_of(subject)!r}, and the name is {name!r}")
        return replace(order, subject=subject)

    def _public_files(self, out: Path, name: str, certificate: "x509.Certificate") -> Iterable["NewFile"]:
        from muster.whole_files import PUBLIC_FILE, NewFile

        yield NewFile(out / f"{name}.pem", pem(certificate), PUBLIC_FILE)
        chain = sent_chain((certificate, *self.issuer.chain))
        yield NewFile(out / f"{name}.fullchain.pem", pem(*chain), PUBLIC_FILE)

    def _key_files(
        self,
        out: Path,
        name: str,
        certificate: "x509.Certificate",
        key: "PrivateKey",
        pass_phrase: str | None,
        *,
        pfx: bool,
    ) -> Iterable["NewFile"]:
        from muster.pki.key_store import write_pfx
        from muster.pki.private_key import write_private_key
        from muster.whole_files import PRIVATE_FILE, NewFile

        yield NewFile(out / f"{name}.key", write_private_key(key, pass_phrase), PRIVATE_FILE)
        if pfx and pass_phrase is not None:
            content = write_pfx(name, key, (certificate, *self.issuer.chain), pass_phrase)
            yield NewFile(out / f"{name}.pfx", content, PRIVATE_FILE)

    def hand_over(self, made: Sequence[_Made], key_kind: str, *, force: bool, output: Format) -> None:
        """Write the files, and tell what there is."""
        advice = "the certificates are in the journal of the CA: revoke them, or issue them again"
        write_files([file for one in made for file in one.files], force=force, advice=advice)
        if output is Format.JSON:
            documents = [
                {
                    "name": one.name,
                    "files": [str(file.path) for file in one.files],
                    **certificate_document(read_facts(one.certificate)),
                }
                for one in made
            ]
            print_json({"issuer": self.authority.name, "profile": self.wish.profile, "certificates": documents})
            return
        rows = [
            (one.name, until(read_facts(one.certificate)), ", ".join(file.path.name for file in one.files))
            for one in made
        ]
        where = made[0].files[0].path.parent
        print(f"Issued by {self.authority.name}, profile {self.wish.profile}, into {where}:\n")
        print(table_text(("Name", "Valid until", "Files"), rows))
        print("".join(f"\n{note}" for note in self._notes(made[0].certificate, key_kind)), end="")

    def _notes(self, certificate: "x509.Certificate", key_kind: str) -> Iterable[str]:
        from muster.pki.private_key import KEY_KIND_NOTES

        if key_kind in KEY_KIND_NOTES:
            yield f"Note: {KEY_KIND_NOTES[key_kind]}.\n"
        if certificate.not_valid_after_utc == self.authority.certificate.not_valid_after_utc:
            yield f"Note: it ends with its CA; renew that in time, with --renew {self.authority.name}.\n"
        if self.wish.profile == "device":
            file = shlex.quote(str(self.authority.certificate_file))
            yield f"Next: muster group create {self.authority.name} --certificate {file}\n"
