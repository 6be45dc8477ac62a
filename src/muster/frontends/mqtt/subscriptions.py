"""What one connected device is subscribed to. Source: hub-device.md 3.5.

Ordinary MQTT matching, on topics of the device's own: a wildcard never reaches another identity's. Not here: keeping
subscriptions for the next connection (``hub/mqtt_sessions.py``).
"""

from collections.abc import Iterable, Mapping, Sequence

from muster.wire.mqtt_topics import matches

MAXIMUM_FILTERS = 100
"""A session is stored, so it has a bound; no client has more than ten filters."""


class Subscriptions:
    """Topic filters and the QoS granted to each."""

    __slots__ = ("_granted",)

    def __init__(self, granted: Mapping[str, int]) -> None:
        self._granted = {topic_filter.encode(): qos for topic_filter, qos in granted.items()}

    def add(self, filters: Iterable[tuple[bytes, int]]) -> list[int]:
        """Grant every filter, at QoS 1 at most; the return codes in their order."""
        codes = []
        for topic_filter, qos in filters:
            codes.append(min(qos, 1))
            self._granted[topic_filter] = codes[-1]
        return codes

    def remove(self, filters: Sequence[bytes]) -> None:
        for topic_filter in filters:
            self._granted.pop(topic_filter, None)

    def qos(self, topic: bytes) -> int | None:
        """The highest QoS of the filters that match this topic; None: the device does not want it."""
        found = [qos for topic_filter, qos in self._granted.items() if matches(topic_filter, topic)]
        return max(found) if found else None

    def has_any(self, prefix: bytes) -> bool:
        """Whether some filter begins so."""
        return any(topic_filter.startswith(prefix) for topic_filter in self._granted)

    def __len__(self) -> int:
        return len(self._granted)

    def stored(self) -> dict[str, int]:
        """What the next connection finds again."""
        return {topic_filter.decode(): qos for topic_filter, qos in self._granted.items()}
