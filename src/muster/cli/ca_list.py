"""``muster ca list``, ``show`` and ``profiles``: what there is in a CA directory, and how long it lives.

Not here: certificates that no CA of the directory issued (``muster cert inspect``).
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.ca_facts import issued_document, read_facts, standing_text, state_of, until
from muster.cli.ca_options import DEFAULT_CA_DIR, At, CaDir, ca_directory, moment_of, told
from muster.cli.certificate_facts import certificate_document, certificate_rows
from muster.cli.failure import CommandError
from muster.cli.options import Output
from muster.cli.output import Format, print_json, printable, record_text, short_time, table_text

if TYPE_CHECKING:
    from muster.ca_directory import CaDirectory, IssuedCertificate, StoredAuthority
    from muster.pki.expiry import State


def list_certificates(
    *,
    issuer: Annotated[
        str | None, typer.Option("--issuer", help="Only what this CA issued.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also certificates that a newer one has replaced.")] = False,
    at: At = None,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """List the CAs and their certificates, each with the days it has left and a traffic light."""
    now = moment_of(at)
    with told():
        directory = ca_directory(ca_dir)
        authorities = [directory.authority(issuer)] if issuer else directory.authorities()
        authorities.sort(key=lambda one: len(one.chain))
        issued = [
            one
            for authority in authorities
            for one in authority.issued()
            if not directory.has(one.name) and (every or not one.is_replaced)
        ]
        if output is Format.JSON:
            documents = [_authority_document(directory, one, now) for one in authorities]
            print_json({"authorities": documents, "certificates": [issued_document(one, now) for one in issued]})
            return
        if not authorities:
            raise CommandError(f"there is no CA in {ca_dir}", "make one: muster ca init")
        print(table_text(_AUTHORITY_HEADERS, [_authority_row(directory, one, now) for one in authorities]))
    if issued:
        print()
        print(table_text(_ISSUED_HEADERS, [_issued_row(one, now) for one in issued]))


_AUTHORITY_HEADERS = ("CA", "Issuer", "Subject", "Valid until", "Standing", "Issued", "Revoked", "List due")
_ISSUED_HEADERS = ("Name", "Issuer", "Profile", "Serial number", "Valid until", "Standing")


def _authority_row(directory: "CaDirectory", authority: "StoredAuthority", now: int) -> tuple[object, ...]:
    document = _authority_document(directory, authority, now)
    facts = read_facts(authority.certificate)
    due = document["revocationList"]
    return (
        authority.name,
        document["issuer"] or ("itself" if authority.is_root else facts.issuer),
        facts.subject,
        until(facts),
        standing_text(_authority_state(directory, authority, now), facts.not_after or 0, now),
        document["issued"],
        document["revoked"],
        "" if due is None else short_time(due["nextUpdateUtc"]) + (" (overdue)" if due["overdue"] else ""),
    )


def _issued_row(issued: "IssuedCertificate", now: int) -> tuple[object, ...]:
    facts = read_facts(issued.certificate)
    state = state_of(facts, now, issued.revocation, replaced=issued.is_replaced)
    return (
        issued.name,
        issued.authority,
        issued.profile,
        facts.serial_number,
        until(facts),
        standing_text(state, facts.not_after or 0, now),
    )


def _authority_state(directory: "CaDirectory", authority: "StoredAuthority", now: int) -> "State":
    above = directory.parent(authority)
    serial_number = authority.certificate.serial_number
    revocations = (one.revocation for one in (above.issued() if above else ()) if one.serial_number == serial_number)
    return state_of(read_facts(authority.certificate), now, next(revocations, None), replaced=False)


def _authority_document(directory: "CaDirectory", authority: "StoredAuthority", now: int) -> dict[str, Any]:
    from muster.pki.certificate import utc_text
    from muster.pki.expiry import LIGHTS, days_left

    facts = read_facts(authority.certificate)
    state = _authority_state(directory, authority, now)
    above = directory.parent(authority)
    issued = [one for one in authority.issued() if one.name != authority.name]
    next_update = authority.next_update()
    return {
        "name": authority.name,
        "issuer": None if above is None else above.name,
        "light": LIGHTS[state],
        "state": str(state),
        "daysLeft": days_left(facts.not_after or 0, now),
        "issued": len(issued),
        "revoked": sum(one.revocation is not None for one in issued),
        "revocationList": None
        if next_update is None
        else {
            "number": authority.list_number(),
            "nextUpdateUtc": utc_text(next_update),
            "overdue": now > next_update,
        },
        "certificateFile": str(authority.certificate_file),
        "keyFile": str(authority.key_file),
        **certificate_document(facts),
    }


def show(
    name: Annotated[
        str, typer.Argument(help="A CA, or the name or serial number of a certificate.", show_default=False)
    ],
    *,
    at: At = None,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Show a CA, or a certificate and all that were issued under its name before it."""
    now = moment_of(at)
    with told():
        directory = ca_directory(ca_dir)
        if directory.has(name):
            _show_authority(directory, directory.authority(name), now, output)
            return
        found = sorted(directory.find(name), key=lambda one: one.time, reverse=True)
    if not found:
        raise CommandError(
            f"there is no certificate {printable(name)!r} in {ca_dir}", "muster ca list shows what there is"
        )
    if output is Format.JSON:
        print_json([issued_document(one, now) for one in found])
        return
    newest, *older = found
    print(record_text([*_standing_rows(newest, now), *certificate_rows(read_facts(newest.certificate), now)]))
    if older:
        print(f"\nOther certificates of {printable(name)}:")
        print(table_text(_ISSUED_HEADERS, [_issued_row(one, now) for one in older]))


def _standing_rows(issued: "IssuedCertificate", now: int) -> list[tuple[str, object]]:
    from muster.pki.certificate import utc_text

    facts = read_facts(issued.certificate)
    state = state_of(facts, now, issued.revocation, replaced=issued.is_replaced)
    revoked = issued.revocation
    rows: list[tuple[str, object]] = [
        ("Name", issued.name),
        ("Issued by", f"{issued.authority}, profile {issued.profile}, on {short_time(utc_text(issued.time))}"),
        ("Standing", standing_text(state, facts.not_after or 0, now)),
    ]
    if revoked is not None:
        rows.append(("Revoked", f"{short_time(utc_text(revoked.time))}, {revoked.reason}"))
    return rows


def _show_authority(directory: "CaDirectory", authority: "StoredAuthority", now: int, output: Format) -> None:
    document = _authority_document(directory, authority, now)
    if output is Format.JSON:
        print_json(document)
        return
    facts, due = read_facts(authority.certificate), document["revocationList"]
    rows: list[tuple[str, object]] = [
        ("CA", authority.name),
        ("Below", document["issuer"] or ""),
        ("Standing", standing_text(_authority_state(directory, authority, now), facts.not_after or 0, now)),
        ("Issued", f"{document['issued']}, of them revoked: {document['revoked']}"),
        (
            "Revocation list",
            f"number {due['number']}, next due {short_time(due['nextUpdateUtc'])}" if due else "none yet",
        ),
        ("Certificate", authority.certificate_file),
        ("Private key", authority.key_file),
    ]
    print(record_text([*rows, *certificate_rows(facts, now)]))


def profiles(*, ca_dir: CaDir = DEFAULT_CA_DIR, output: Output = Format.TABLE) -> None:
    """List the profiles: the built-in ones, and those of profiles.toml in the CA directory."""
    import msgspec

    with told():
        found = ca_directory(ca_dir).profiles
    if output is Format.JSON:
        print_json({name: msgspec.to_builtins(profile) for name, profile in found.items()})
        return
    rows = [
        (
            name,
            profile.days,
            profile.key,
            "CA" if profile.ca else ", ".join(profile.extended_key_usage),
            profile.description,
        )
        for name, profile in found.items()
    ]
    print(table_text(("Profile", "Days", "Key", "For", "Description"), rows))
