"""The twin over MQTT: one connected device reads it, patches what it reports, and hears of what is desired.

Requests are worked on one after the other, as they came. Source: hub-device.md 7. Not here: rules (``domain/twin.py``).
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from muster.domain.errors import ArgumentInvalidError, ServiceError
from muster.frontends.mqtt.subscriptions import Subscriptions
from muster.frontends.topics import TwinRequest, desired_topic, twin_response
from muster.hub.desired_changes import DesiredChanges
from muster.hub.twins import Twins

_log = logging.getLogger("muster.mqtt")

Send = Callable[[bytes, bytes], None]
"""Publish to the device at QoS 0: topic, payload."""

Spawn = Callable[[Coroutine[Any, Any, None]], object]

_LONGEST_VERSION = 18  # digits: what fits into 64 bits

_READ = 200
_PATCHED = 204


class MqttTwin:
    """The twin of one connection. What it says with ``reply`` leaves with the acknowledgement of the request."""

    def __init__(
        self,
        twins: Twins,
        key: tuple[str, str, str],
        subscriptions: Subscriptions,
        send: Send,
        reply: Send,
        spawn: Spawn,
        error_body: Callable[[ServiceError], bytes],
    ) -> None:
        self._twins = twins
        self._key = key
        self._subscriptions = subscriptions
        self._send = send
        self._reply = reply
        self._spawn = spawn
        self._error_body = error_body
        self._changes: DesiredChanges | None = None

    async def subscriptions_changed(self) -> None:
        """Hear of desired properties, or stop hearing. Raises DeviceNotFoundError."""
        wanted = self._subscriptions.qos(desired_topic(1)) is not None
        if wanted and self._changes is None:
            self._changes = await self._twins.follow_desired(*self._key, self._desired, self._spawn)
        elif not wanted and self._changes is not None:
            self.close()

    def _desired(self, version: int, document: bytes) -> None:
        topic = desired_topic(version)
        if self._subscriptions.qos(topic) is not None:
            self._send(topic, document)

    async def answer(self, request: TwinRequest, body: bytes) -> None:
        """Do it, and answer on the topic of answers, if the request has a ``$rid``."""
        try:
            if request.is_patch:
                version = await self._twins.update_reported(*self._key, body, _expected(request.version))
                code, payload, shown = _PATCHED, b"", version
            else:
                code, payload, shown = _READ, await self._twins.device_document(*self._key), None
        except ServiceError as error:
            code, payload, shown = error.status, self._error_body(error), None
        if request.rid is None:
            return
        topic = twin_response(code, request.rid, shown)
        if self._subscriptions.qos(topic) is not None:
            self._reply(topic, payload)

    def close(self) -> None:
        if self._changes is not None:
            self._changes.close()
            self._changes = None


def _expected(version: str | None) -> int | None:
    """Raises ArgumentInvalidError."""
    if version is None:
        return None
    if not (version.isascii() and version.isdigit() and len(version) <= _LONGEST_VERSION):
        raise ArgumentInvalidError(f"$version {version[:50]!r} is not a number.")
    return int(version)
