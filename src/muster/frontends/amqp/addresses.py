"""Link addresses in every spelling that clients use, as their segments. Sources: hub-device.md 9.4, hub-service.md 8.2.

Pure. Not here: who serves which address.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from muster.hub.hubs import host_without_port

_LONGEST = 2048


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` in lower case and without a port; ``segments`` decoded once, in the spelling that was sent.

    ``text`` is the address as sent, ``query`` what follows its question mark.
    """

    host: str
    segments: tuple[str, ...]
    text: str = ""
    query: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The segments in lower case: what is not an id compares ignoring case."""
        return tuple(segment.lower() for segment in self.segments)


def parse_address(text: str, host: str) -> Address:
    """``amqps://host:5671/a/b?q``, ``/a/b`` and ``a/b``; ``host`` is that of an address without one.

    A device id may hold a question mark, and clients that write one raw do not encode it: only what looks like
    ``?name=value`` is a query. An address of more than 2048 characters has no segments.
    """
    if len(text) > _LONGEST:
        return Address(host, (), text[:_LONGEST])
    path = text
    scheme, separator, rest = text.partition("://")
    if separator and scheme.isalnum():
        authority, _, path = rest.partition("/")
        host = host_without_port(authority)
    head, mark, query = path.rpartition("?")
    if mark and "=" in query:
        path = head
    else:
        query = ""
    return Address(host, tuple(unquote(piece) for piece in path.split("/") if piece), text, query)
