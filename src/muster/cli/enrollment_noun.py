"""What ``muster enrollment`` and ``muster group`` do alike: the commands of a kind of enrollment, bare of options.

Not here: the options (``cli/enrollment.py``, ``cli/group.py``), what a document looks like
(``cli/enrollment_document.py``), and requests (``cli/enrollment_requests.py``).
"""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from muster.cli.attestation_document import attestation_rows, attestation_text, key_rows
from muster.cli.enrollment_document import Changes, Document, changed, enrollment_rows, new_document
from muster.cli.options import ServerOptions
from muster.cli.output import Format, print_json, printable, record_text, short_time, table_text

if TYPE_CHECKING:
    from muster.cli.enrollment_requests import EnrollmentRequests


@dataclass(frozen=True)
class EnrollmentNoun:
    """``word`` is that of the routes, ``member`` that of an id in a document, ``noun`` that of the command line."""

    word: str
    member: str
    noun: str

    def requests(self, server: ServerOptions) -> "EnrollmentRequests":
        from muster.cli.enrollment_requests import EnrollmentRequests

        return EnrollmentRequests(server.connect(), self.word, self.member, self.noun)

    def create(self, name: str, changes: Changes, server: ServerOptions, output: Format, *, replace: bool) -> None:
        """Raises CommandError for one that exists, unless it is to be replaced."""
        document = changed(new_document(self.member, name), changes)
        requests = self.requests(server)
        _print_written(requests.create(document, update=replace), output)
        _print_warnings(requests)

    def update(self, name: str, changes: Changes, server: ServerOptions, output: Format, etag: str | None) -> None:
        """Raises BadParameter when there is nothing to change."""
        if changes == Changes():
            raise typer.BadParameter("nothing to change: name at least one option, such as --disable")
        requests = self.requests(server)
        existing = requests.get(name)
        _print_written(requests.put(changed(existing, changes), etag or existing.get("etag")), output)
        _print_warnings(requests)

    def print_all(self, server: ServerOptions, output: Format, top: int) -> None:
        documents = self.requests(server).all(top)
        if output is Format.JSON:
            print_json(documents)
            return
        headers = (
            f"{self.member[0].upper()}{self.member[1:]}",
            "Attestation",
            "Provisioning Status",
            "Created",
            "Last Updated",
        )
        print(table_text(headers, [self._row(document) for document in documents]))

    def _row(self, document: Document) -> tuple[object, ...]:
        return (
            document.get(self.member),
            attestation_text(document),
            document.get("provisioningStatus"),
            short_time(document.get("createdDateTimeUtc")),
            short_time(document.get("lastUpdatedDateTimeUtc")),
        )

    def print_one(self, name: str, server: ServerOptions, output: Format) -> None:
        document = self.requests(server).get(name)
        if output is Format.JSON:
            print_json(document)
        else:
            print(record_text([*enrollment_rows(document), *attestation_rows(document)]))

    def print_keys(self, name: str, server: ServerOptions, output: Format) -> None:
        mechanism = self.requests(server).keys(name)
        if output is Format.JSON:
            print_json(mechanism)
        else:
            print(record_text([("Attestation", mechanism.get("type")), *key_rows(mechanism)]))

    def delete(self, name: str, server: ServerOptions, etag: str | None) -> None:
        self.requests(server).delete(name, etag)
        print(f"deleted {self.noun} {printable(name)}")


def _print_written(document: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(document)
    else:
        print(record_text(enrollment_rows(document)))


def _print_warnings(requests: "EnrollmentRequests") -> None:
    for check in requests.warnings():
        print(f"warning: {printable(check['detail'])}: {printable(check['fix'])}", file=sys.stderr)
