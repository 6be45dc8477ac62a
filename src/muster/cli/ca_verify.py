"""``muster ca verify``: does a chain of certificates hold, told as named facts, at any time.

Not here: what DPS makes of it (``muster cert doctor``), and how chains are found (``pki/verify.py``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.ca_options import DEFAULT_CA_DIR, At, CaDir, ca_directory, moment_of, read_bytes, told
from muster.cli.checks import check_lines, marks
from muster.cli.failure import CommandError
from muster.cli.options import Output
from muster.cli.output import Format, print_json, printable
from muster.cli.pass_phrase import choose_pass_phrase, unlock

if TYPE_CHECKING:
    from muster.ca_directory import CaDirectory
    from muster.domain.report import Check
    from muster.pki.chain_certificate import ChainCertificate
    from muster.pki.revocation import RevocationLists
    from muster.pki.verify import Chain, ChainLink


class Purpose(StrEnum):
    """The choices of ``--purpose``."""

    CLIENT = "client"
    SERVER = "server"
    ANY = "any"


def verify(
    files: Annotated[
        list[Path],
        typer.Argument(help="The certificate and those above it, in one file or several.", show_default=False),
    ],
    *,
    trust: Annotated[
        list[Path] | None,
        typer.Option(help="A file with trusted CAs; else the roots of the CA directory.", show_default=False),
    ] = None,
    crl: Annotated[
        list[Path] | None,
        typer.Option(help="A file with revocation lists, besides those of the CA directory.", show_default=False),
    ] = None,
    purpose: Annotated[Purpose, typer.Option(help="What the certificate is to be used for.")] = Purpose.CLIENT,
    at: At = None,
    pass_phrase: Annotated[
        str | None,
        typer.Option(help="Of a PFX file; other users of this machine can see it.", show_default=False),
    ] = None,
    pass_phrase_file: Annotated[
        Path | None, typer.Option(help="Of a PFX file: the first line of this file.", show_default=False)
    ] = None,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Verify a certificate up to a trusted CA. Exit code 0 only if nothing is wrong.

    All but the trusted CA has to be in the files, as a device has to send it.
    """
    import msgspec

    from muster.domain.report import refusals
    from muster.pki.verify import KnownCertificates, find_chain

    now, secret = moment_of(at), choose_pass_phrase(pass_phrase, pass_phrase_file)
    with told():
        directory = ca_directory(ca_dir)
        presented = [one for file in files for one in _certificates(file, secret)]
        trusted = [one for file in trust or () for one in _certificates(file, secret)] or _roots(directory)
        if not trusted:
            raise CommandError(f"nothing is trusted: there is no CA in {ca_dir}", "name a file with --trust")
        known = KnownCertificates(_loaded(trusted), _loaded(_authorities(directory)))
        lists = _lists(directory, crl or ())
        chain = find_chain(presented, known, now)
    checks = tuple(_Facts(chain, lists, purpose, now).checks())
    refused = bool(refusals(checks))
    if output is Format.JSON:
        print_json(
            {
                "verified": not refused,
                "chain": [link.certificate.facts.subject for link in chain.links],
                "checks": msgspec.to_builtins(checks),
            }
        )
    else:
        print(f"{files[0]}: {'not verified' if refused else 'verified'}")
        print("\n".join(check_lines(msgspec.to_builtins(checks), marks())))
    if refused:
        raise typer.Exit(1)


# What there is


def _certificates(file: Path, pass_phrase: str | None) -> tuple[bytes, ...]:
    """The certificates in a file; a key in it is of no interest, but that of a PFX file locks them up too."""
    from muster.pki.certificate import CertificateFormatError, read_certificates
    from muster.pki.key_store import KeyStoreError, is_pfx, read_key_store

    content = read_bytes(file)
    try:
        if is_pfx(content):
            return unlock(lambda secret: read_key_store(content, secret), pass_phrase, str(file)).certificates
        return tuple(read_certificates(content))
    except (CertificateFormatError, KeyStoreError) as error:
        raise CommandError(f"{file}: {error}") from error


def _authorities(directory: "CaDirectory") -> list[bytes]:
    from cryptography.hazmat.primitives.serialization import Encoding

    return [one.certificate.public_bytes(Encoding.DER) for one in directory.authorities()]


def _roots(directory: "CaDirectory") -> list[bytes]:
    from cryptography.hazmat.primitives.serialization import Encoding

    return [one.certificate.public_bytes(Encoding.DER) for one in directory.authorities() if one.is_root]


def _loaded(certificates: Iterable[bytes]) -> "list[ChainCertificate]":
    from muster.pki.chain_certificate import ChainCertificate

    return [ChainCertificate(one) for one in certificates]


def _lists(directory: "CaDirectory", files: Sequence[Path]) -> "RevocationLists":
    from muster.pki.revocation import RevocationListError, RevocationLists, read_revocation_lists

    own = [one.list_file for one in directory.authorities() if one.list_file.exists()]
    found = []
    for file in (*files, *own):
        try:
            found += read_revocation_lists(read_bytes(file))
        except RevocationListError as error:
            raise CommandError(f"{file}: {error}") from error
    return RevocationLists(found)


# What is found


class _Facts:
    """A chain as named checks."""

    def __init__(self, chain: "Chain", lists: "RevocationLists", purpose: Purpose, now: int) -> None:
        self._chain = chain
        self._lists = lists
        self._purpose = purpose
        self._now = now
        self._own = chain.links[0].certificate
        self._last = chain.links[-1].certificate

    def checks(self) -> "Iterator[Check]":
        links, issuers = self._chain.links, self._chain.links[1:]
        yield self._complete()
        yield self._every(
            "chain.dates", links, self._date_problem, "all are in their dates", "issue it anew, or renew the CA"
        )
        yield self._every(
            "chain.ca",
            issuers,
            lambda link: "" if link.may_issue else "is no CA, or may not sign certificates",
            "all issuers are CAs",
            "a CA has basicConstraints CA:TRUE, and keyUsage keyCertSign: muster ca intermediate makes one",
        )
        yield self._every(
            "chain.path-length",
            issuers,
            lambda link: "" if link.path_length_kept else f"allows {link.certificate.path_length} further CAs below it",
            "no CA has more CAs below it than it allows",
            "issue it from a CA that stands higher, or make the CA with a larger --path-length",
        )
        yield self._every(
            "chain.name-constraints",
            links,
            lambda link: f"has the name {link.excluded_name!r}" if link.excluded_name else "",
            "no name is one that a CA above may not certify",
            "take another name, or a CA that may certify it",
        )
        yield self._every(
            "chain.extensions",
            links,
            lambda link: link.certificate.extension_problem,
            "all extensions can be read",
            "make the certificate again, with another tool",
        )
        yield self._standard()
        yield self._fits_purpose()
        yield self._revocation()

    def _complete(self) -> "Check":
        from muster.pki.verify import ChainEnd

        links, end = self._chain.links, self._chain.end
        gap = next((link for link in links if not link.is_usable), None)
        names = " < ".join(_named(link.certificate) for link in links)
        issuer = printable(repr(self._last.facts.issuer))
        if links[0].trusted:
            return _check("chain.complete", f"{_named(self._own)} is trusted itself")
        if gap is not None:
            fix = "add it to the files, as a device has to send it: muster ca export NAME --format fullchain"
            return _check("chain.complete", f"{_named(gap.certificate)} is known here, but not in the files", fix)
        if end is ChainEnd.TRUSTED:
            return _check("chain.complete", f"each is signed by the next, the last is trusted: {names}")
        details = {
            ChainEnd.ISSUER_MISSING: f"issuer {issuer} of {_named(self._last)} is neither in the files nor trusted",
            ChainEnd.SIGNATURE_WRONG: f"{_named(self._last)} is not signed by the {issuer} that is there",
            ChainEnd.UNTRUSTED: f"it ends at {_named(self._last)}, which signed itself and is not trusted",
            ChainEnd.TOO_LONG: f"it is too long: {names}",
            ChainEnd.TOO_MUCH_WORK: "too many certificates have the same name",
        }
        fix = "give all certificates up to a trusted one: the files of those between, and --trust FILE for the root"
        return _check("chain.complete", details[end], fix)

    def _every(
        self,
        check_id: str,
        links: "Sequence[ChainLink]",
        problem: "Callable[[ChainLink], str]",
        good: str,
        fix: str,
    ) -> "Check":
        found = [f"{_named(link.certificate)} {what}" for link in links if (what := problem(link))]
        return _check(check_id, "; ".join(found), fix) if found else _check(check_id, good)

    def _date_problem(self, link: "ChainLink") -> str:
        from muster.pki.certificate import utc_text

        facts = link.certificate.facts
        if link.in_dates:
            return ""
        if facts.not_before is None or facts.not_after is None:
            return "has dates that cannot be read"
        early = self._now < facts.not_before
        return f"is valid from {utc_text(facts.not_before)}" if early else f"expired on {utc_text(facts.not_after)}"

    def _standard(self) -> "Check":
        refusal = self._chain.refusal
        fix = "make the certificates again with another tool, and compare: muster cert inspect FILE"
        return (
            _check("chain.standard", printable(refusal), fix)
            if refusal
            else _check("chain.standard", "nothing else is wrong")
        )

    def _fits_purpose(self) -> "Check":
        from muster.pki import object_identifiers

        usages = self._own.facts.extended_key_usage
        wanted = {Purpose.CLIENT: object_identifiers.CLIENT_AUTH, Purpose.SERVER: object_identifiers.SERVER_AUTH}
        shown = "no extended key usage, so for everything" if usages is None else f"for {', '.join(usages)}"
        needed = wanted.get(self._purpose)
        fits = (
            needed is None or usages is None or bool({needed, object_identifiers.ANY_EXTENDED_KEY_USAGE} & set(usages))
        )
        fix = "" if fits else f"issue it with a profile that has {needed}, or ask for another --purpose"
        return _check("chain.purpose", printable(shown), fix)

    def _revocation(self) -> "Check":
        """What the lists say, the worst of it."""
        from muster.domain.report import Check, Outcome
        from muster.pki.certificate import utc_text
        from muster.pki.revocation import RevocationStatus

        by_status: dict[RevocationStatus, list[str]] = {}
        path = [link.certificate for link in self._chain.links]
        for certificate, finding in zip(path, self._lists.judge(path, self._now), strict=False):
            text = _named(certificate)
            if finding.revocation is not None:
                text += f" was revoked on {utc_text(finding.revocation.time)}: {finding.revocation.reason}"
            by_status.setdefault(finding.status, []).append(text)
        told = {status: ", ".join(texts) for status, texts in by_status.items()}
        if RevocationStatus.REVOKED in told:
            return _check(
                "chain.revocation", told[RevocationStatus.REVOKED], "issue another certificate with another key"
            )
        if RevocationStatus.STALE in told:
            detail = f"a newer list is due for {told[RevocationStatus.STALE]}"
            return Check("chain.revocation", Outcome.WARNED, detail, "make one: muster ca crl")
        unknown = f"there is no list for {told[RevocationStatus.UNKNOWN]}" if RevocationStatus.UNKNOWN in told else ""
        if RevocationStatus.GOOD in told:
            good = f"not on the lists: {told[RevocationStatus.GOOD]}"
            return _check("chain.revocation", f"{good}; {unknown}" if unknown else good)
        return Check("chain.revocation", Outcome.SKIPPED, unknown or "no CA stands above it")


def _named(certificate: "ChainCertificate") -> str:
    return printable(repr(certificate.facts.subject))


def _check(check_id: str, detail: str, fix: str = "") -> "Check":
    """One that refuses when there is something to be done."""
    from muster.domain.report import Check, Outcome

    return Check(check_id, Outcome.REFUSED if fix else Outcome.PASSED, detail, fix)
