"""What a registration compares its certificate chain or token with: all groups and CA certificates of an id scope, in
memory.

Few, rarely written, and needed by every registration of a group: they are read once and again after a change.
Another node's change is heard on the bus, and at the latest seen after a second. Not here: writing them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.bus.bus import Bus
from muster.domain.authority import Authority
from muster.domain.enrollment import Enrollment
from muster.domain.timestamp import SECOND
from muster.domain.x509_trust import CaCertificate, X509Group, X509Trust
from muster.dps.enrollments import Enrollments, enrollments_changed_subject
from muster.hub.authorities import Authorities, AuthorityTable

_STALE = SECOND

CA_CERTIFICATES = AuthorityTable(
    "ca_certificate", "id_scope", "provisioning_service WHERE id_scope", enrollments_changed_subject
)
"""The CA certificates of provisioning services."""


@dataclass(frozen=True, slots=True)
class Groups:
    """One id scope's groups and CA certificates as they were read."""

    read: int
    enrollments: dict[str, Enrollment]
    symmetric: tuple[Enrollment, ...]
    authorities: dict[str, Authority]
    trust: X509Trust

    def by_id(self, group_id: str) -> Enrollment | None:
        return self.enrollments.get(group_id)

    def only(self, group: Enrollment) -> "Groups":
        """The same as if ``group`` were the only one; the CA certificates stay."""
        return _groups(self.read, [group], self.authorities)

    def certificates_of(self, enrollment: Enrollment) -> tuple[bytes, ...]:
        """The certificates that an enrollment's chains have to go through: its own, or the CA certificates it names."""
        return _certificates(enrollment, self.authorities)


class GroupIndex:
    """The groups of all id scopes, kept in memory."""

    def __init__(self, groups: Enrollments, authorities: Authorities, bus: Bus, clock: Callable[[], int]) -> None:
        self._groups = groups
        self._authorities = authorities
        self._bus = bus
        self._clock = clock
        self._known: dict[str, Groups] = {}
        self._watched: set[str] = set()

    async def get(self, id_scope: str) -> Groups:
        """As they are now: after a write on this node at once, after one on another node within a second."""
        known = self._known.get(id_scope)
        now = self._clock()
        if known is not None and 0 <= now - known.read < _STALE:
            return known
        self._watch(id_scope)
        groups = await self._read(id_scope, now)
        self._known[id_scope] = groups
        return groups

    def _watch(self, id_scope: str) -> None:
        if id_scope not in self._watched:
            self._watched.add(id_scope)
            self._bus.subscribe(enrollments_changed_subject(id_scope), lambda _message: self.forget(id_scope))

    def forget(self, id_scope: str) -> None:
        """Something was written: read again at the next use."""
        self._known.pop(id_scope, None)

    async def _read(self, id_scope: str, now: int) -> Groups:
        enrollments = await self._groups.all(id_scope)
        authorities = {authority.name.lower(): authority for authority in await self._authorities.all(id_scope)}
        return _groups(now, enrollments, authorities)


def _groups(read: int, enrollments: list[Enrollment], authorities: dict[str, Authority]) -> Groups:
    x509 = [group for group in enrollments if group.mechanism.type == "x509"]
    return Groups(
        read=read,
        enrollments={group.id: group for group in enrollments},
        symmetric=tuple(group for group in enrollments if group.mechanism.type == "symmetricKey"),
        authorities=authorities,
        trust=X509Trust(
            [X509Group(group.id, group.enabled, _certificates(group, authorities)) for group in x509],
            [CaCertificate(item.name, item.certificate.bytes(), item.is_verified) for item in authorities.values()],
        ),
    )


def _certificates(enrollment: Enrollment, authorities: dict[str, Authority]) -> tuple[bytes, ...]:
    mechanism = enrollment.mechanism
    if mechanism.x509_kind != "caReferences":
        return tuple(certificate.bytes() for certificate in mechanism.certificates)
    named = (authorities.get(name.lower()) for name in mechanism.ca_names)
    return tuple(authority.certificate.bytes() for authority in named if authority is not None)
