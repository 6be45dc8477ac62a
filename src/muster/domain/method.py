"""Direct methods: what a caller may ask, and what a device's answer is. Sources: hub-device.md 6, hub-service.md 5.

Not here: how a question reaches the device (``hub/methods.py``).
"""

import re
from typing import Final

import msgspec

from muster.domain.documents import decode
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError, BadDeviceResponseError, TooLargeError

MAXIMUM_PAYLOAD_BYTES: Final = 128 * 1024
"""In either direction, as JSON text."""

MAXIMUM_NAME_LENGTH: Final = 100

_DEFAULT_RESPONSE_SECONDS: Final = 30
_RESPONSE_SECONDS: Final = (5, 300)
_CONNECT_SECONDS: Final = (0, 300)

# The name is a level of a topic that several clients do not decode, and one does (hub-device.md 6.1).
_NAME: Final = re.compile(r"[A-Za-z0-9\-._~!$'()*,:;=@]+", re.ASCII)

_NULL: Final = b"null"


class MethodBody(msgspec.Struct, rename="camel"):
    """The body of an invocation as clients send it."""

    method_name: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"")
    response_timeout_in_seconds: int | None = None
    connect_timeout_in_seconds: int | None = None


class MethodInvocation(msgspec.Struct, frozen=True):
    """A question that may be asked. ``payload`` is JSON text; the time limits are in seconds."""

    name: str
    payload: bytes
    response_seconds: int
    connect_seconds: int


class MethodAnswer(msgspec.Struct, frozen=True):
    """What a device answered: a status of its own, and JSON text."""

    status: int
    payload: bytes


def read_invocation(body: bytes) -> MethodInvocation:
    """Raises ArgumentNullError, ArgumentInvalidError, FormatError and TooLargeError."""
    asked = decode(body, MethodBody)
    if not asked.method_name:
        raise ArgumentNullError("methodName is missing.")
    if len(asked.method_name) > MAXIMUM_NAME_LENGTH:
        raise ArgumentInvalidError(f"methodName has more than {MAXIMUM_NAME_LENGTH} characters.")
    if _NAME.fullmatch(asked.method_name) is None:
        raise ArgumentInvalidError(
            f"methodName {asked.method_name!r} has characters that do not fit into a topic;"
            " letters, digits and -._~!$'()*,:;=@ do."
        )
    payload = bytes(asked.payload) or _NULL
    if len(payload) > MAXIMUM_PAYLOAD_BYTES:
        raise TooLargeError(f"The payload has {len(payload)} bytes; {MAXIMUM_PAYLOAD_BYTES} are allowed.")
    response = _seconds(
        "responseTimeoutInSeconds", asked.response_timeout_in_seconds, _DEFAULT_RESPONSE_SECONDS, _RESPONSE_SECONDS
    )
    connect = _seconds("connectTimeoutInSeconds", asked.connect_timeout_in_seconds, 0, _CONNECT_SECONDS)
    if connect > response:
        raise ArgumentInvalidError(
            f"connectTimeoutInSeconds ({connect}) must not be more than responseTimeoutInSeconds ({response})."
        )
    return MethodInvocation(asked.method_name, payload, response, connect)


def _seconds(name: str, given: int | None, default: int, allowed: tuple[int, int]) -> int:
    value = default if given is None else given
    if not allowed[0] <= value <= allowed[1]:
        raise ArgumentInvalidError(f"{name} is {value}; {allowed[0]} to {allowed[1]} are allowed.")
    return value


def read_answer(status: int, body: bytes) -> MethodAnswer:
    """A device's answer, once it is certain that the caller can be given it. Raises BadDeviceResponseError."""
    payload = body.strip() or _NULL
    if len(payload) > MAXIMUM_PAYLOAD_BYTES:
        raise BadDeviceResponseError(f"The device answered with more than {MAXIMUM_PAYLOAD_BYTES} bytes.")
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadDeviceResponseError(f"The answer of the device is not valid JSON: {error}.") from None
    return MethodAnswer(status, payload)


def answer_view(answer: MethodAnswer) -> bytes:
    """What the caller is sent."""
    return b'{"status":%d,"payload":%b}' % (answer.status, answer.payload)
