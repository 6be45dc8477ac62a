"""Direct methods over MQTT: questions to one connected device, and its answers. Source: hub-device.md 6.1.

Not here: who asks, and time limits (``hub/methods.py``).
"""

from collections.abc import Callable

from muster.frontends.mqtt.subscriptions import Subscriptions
from muster.frontends.topics import MethodResponse, method_topic
from muster.hub.methods import MAXIMUM_IN_FLIGHT, MethodCall, Methods, Serving

Send = Callable[[bytes, bytes], None]
"""Publish to the device at QoS 0: topic, payload."""

# The twin's topics begin alike and are nothing to listen for here.
_METHODS = (b"$iothub/methods/", b"$iothub/+", b"$iothub/#")


class MqttMethods:
    """The questions of one connection. It listens while a filter of its own can match one."""

    def __init__(self, methods: Methods, key: tuple[str, str, str], subscriptions: Subscriptions, send: Send) -> None:
        self._methods = methods
        self._key = key
        self._subscriptions = subscriptions
        self._send = send
        self._serving: Serving | None = None
        self._open: dict[str, MethodCall] = {}
        self._last_rid = 0

    def subscriptions_changed(self) -> None:
        """Listen, or stop listening."""
        wanted = any(map(self._subscriptions.has_any, _METHODS))
        if wanted and self._serving is None:
            self._serving = self._methods.serve(*self._key, self._ask)
        elif not wanted and self._serving is not None:
            self._serving.close()
            self._serving = None

    def _ask(self, call: MethodCall) -> None:
        self._last_rid += 1
        rid = str(self._last_rid)
        topic = method_topic(call.name, rid)
        if self._subscriptions.qos(topic) is None:
            call.is_not_heard()
            return
        for over in [rid for rid, one in self._open.items() if one.is_over]:
            del self._open[over]
        if len(self._open) >= MAXIMUM_IN_FLIGHT:
            call.refuse()
            return
        self._open[rid] = call
        self._send(topic, call.payload)

    def answered(self, response: MethodResponse, body: bytes) -> None:
        """The device answers; to a question that nobody asks any more, nothing happens."""
        call = self._open.pop(response.rid, None)
        if call is not None:
            call.answer(response.status, body)

    def close(self) -> None:
        """The connection is gone: who still waits hears it."""
        if self._serving is not None:
            self._serving.close()
            self._serving = None
        for call in self._open.values():
            call.give_up()
        self._open.clear()
