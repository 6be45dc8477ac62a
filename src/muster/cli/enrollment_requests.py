"""Requests about individual enrollments and enrollment groups; both have the same routes (dps.md 6.1).

Not here: what the documents look like (``cli/enrollment_document.py``).
"""

from typing import TYPE_CHECKING, Any

from muster.cli.client import DPS_API_VERSION, path
from muster.cli.enrollment_document import Document
from muster.cli.failure import CommandError, RefusedError
from muster.cli.output import printable, short_time

if TYPE_CHECKING:
    from muster.cli.client import Answer, Client

PAGE_SIZE = 100
BULK_SIZE = 10
"""Documented for one bulk operation (dps.md 6.6)."""

_NOT_FOUND = 404


class EnrollmentRequests:
    """The routes of one kind. ``member`` is that of an id in a document, ``noun`` the word of the command line.

    ``tracking_id`` leads to what the server warns of in what was put last, if it does.
    """

    def __init__(self, client: "Client", word: str, member: str, noun: str) -> None:
        self.member = member
        self._client = client
        self._word = word
        self._noun = noun
        self.tracking_id: str | None = None

    def get(self, name: str) -> Document:
        document: Document = self._request("GET", self._word, name).document
        return document

    def find(self, name: str) -> Document | None:
        try:
            return self.get(name)
        except RefusedError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def put(self, document: Document, etag: str | None) -> Document:
        headers = {"If-Match": etag} if etag else {}
        name = str(document[self.member])
        answer = self._request("PUT", self._word, name, body=document, headers=headers)
        self.tracking_id = answer.headers.get("x-muster-tracking-id")
        stored: Document = answer.document
        return stored

    def warnings(self) -> list[Document]:
        """The checks that warned of what was put last, from the report that the server made of them."""
        if self.tracking_id is None:
            return []
        access = self._client.target.provisioning
        reports = self._client.request(access, "GET", path("muster", "v1", "reports", self.tracking_id)).document
        return [check for check in reports[0]["checks"] if check["outcome"] == "warned"]

    def create(self, document: Document, *, update: bool) -> Document:
        """Put one that does not exist, or with ``update`` replace it. Raises CommandError."""
        name = str(document[self.member])
        existing = self.find(name)
        if existing is not None and not update:
            raise CommandError(
                f"{self._noun} {printable(name)} exists already, created"
                f" {short_time(existing.get('createdDateTimeUtc'))}",
                f"change it with `muster {self._noun} update {printable(name)}`, or replace it with --update",
            )
        return self.put(document, existing.get("etag") if existing else None)

    def delete(self, name: str, etag: str | None) -> None:
        self._request("DELETE", self._word, name, headers={"If-Match": etag} if etag else {})

    def keys(self, name: str) -> Document:
        """The attestation mechanism with its keys."""
        document: Document = self._request("POST", self._word, name, "attestationmechanism").document
        return document

    def all(self, top: int) -> list[Document]:
        return self._pages((self._word, "query"), {"query": "SELECT * FROM enrollments"}, top)

    def registrations(self, name: str, top: int) -> list[Document]:
        """The registration records of a group."""
        return self._pages(("registrations", name, "query"), None, top)

    def bulk(self, documents: list[Document], mode: str) -> list[Document]:
        """Write many, ten at a time; returns the errors of those that were not written."""
        failed: list[Document] = []
        for start in range(0, len(documents), BULK_SIZE):
            part = documents[start : start + BULK_SIZE]
            body = {"mode": mode, self._word: part}
            failed += self._request("POST", self._word, body=body).document.get("errors") or []
        return failed

    def _pages(self, segments: tuple[str, ...], body: object, top: int) -> list[Document]:
        found: list[Document] = []
        continuation: str | None = ""
        while continuation is not None and len(found) < top:
            headers = {"x-ms-max-item-count": str(min(PAGE_SIZE, top - len(found)))}
            if continuation:
                headers["x-ms-continuation"] = continuation
            answer = self._request("POST", *segments, body=body, headers=headers)
            found.extend(answer.document or [])
            continuation = answer.headers.get("x-ms-continuation") or None
        return found

    def _request(
        self, method: str, *segments: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> "Answer":
        return self._client.request(
            self._client.target.provisioning,
            method,
            path(*segments),
            query={"api-version": DPS_API_VERSION},
            body=body,
            headers=headers,
        )
