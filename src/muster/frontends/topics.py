"""MQTT user names and topics of both services: parsed and formatted, nothing else.

Sources: dps.md 2.1 to 2.5, hub-device.md 3.2, 4.1, 5.4, 6.1, 7.1. Pure: no connection, no service.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

REGISTRATION_RESPONSES = "$dps/registrations/res/"

HUB_REQUESTS = b"$iothub/"
"""What the topics of twins and methods begin with, in both directions."""

# A hub's device may be called "registrations": what then stands at the registration id's place is a query.
_DPS_LOGIN = re.compile(r"([^/]+)/registrations/([^/?=]+)(?:/(.*))?", re.DOTALL)
_LONGEST_TOPIC = 0xFFFF - 32  # an answer's topic has at most a few bytes more than the request's
_REGISTER = re.compile(r"\$dps/registrations/PUT/iotdps-register/\?(.*)", re.DOTALL)
_OPERATION_STATUS = re.compile(r"\$dps/registrations/GET/iotdps-get-operationstatus/\?(.*)", re.DOTALL)
_TWIN_GET = re.compile(r"\$iothub/twin/GET/?(?:\?(.*))?", re.DOTALL)
_TWIN_PATCH = re.compile(r"\$iothub/twin/PATCH/properties/reported/?(?:\?(.*))?", re.DOTALL)
_METHOD_ANSWER = re.compile(r"\$iothub/methods/res/(-?\d{1,10})/?\?(.*)", re.DOTALL | re.ASCII)


@dataclass(frozen=True, slots=True)
class DpsUserName:
    """``{idScope}/registrations/{registrationId}/api-version=...&ClientVersion=...``"""

    id_scope: str
    registration_id: str
    api_version: str
    client_version: str


@dataclass(frozen=True, slots=True)
class HubUserName:
    """``{hub}/{device}[/{module}]/?api-version=...&DeviceClientType=...&model-id=...``"""

    host: str
    device_id: str
    module_id: str
    api_version: str
    client_type: str
    model_id: str


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """A publish of a registering device; ``operation_id`` is None for a register, which has none. ``rid`` as sent."""

    rid: str
    operation_id: str | None


@dataclass(frozen=True, slots=True)
class TwinRequest:
    """A device reads its twin or patches what it reports. ``rid`` and ``version`` as sent, None when missing."""

    is_patch: bool
    rid: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class MethodResponse:
    """A device answers a direct method; ``status`` is its own."""

    status: int
    rid: str


def parse_dps_user_name(text: str) -> DpsUserName | None:
    """None when ``text`` is not a DPS login. Decoding comes after splitting (dps.md 9.2, 21)."""
    match = _DPS_LOGIN.fullmatch(text)
    if match is None:
        return None
    query = parse_query(match[3] or "")
    return DpsUserName(
        unquote(match[1]), unquote(match[2]), query.get("api-version", ""), query.get("clientversion", "")
    )


def parse_hub_user_name(text: str, client_id: str) -> HubUserName | None:
    """None when ``text`` does not name the identity that ``client_id`` names (hub-device.md 3.1, 3.2).

    Ids may hold ``?``, ``=`` and other characters of the query, so they are taken by their place after the host.
    """
    host, separator, rest = text.partition("/")
    if not host or not separator or not client_id:
        return None
    if rest != client_id and not rest.startswith(f"{client_id}/"):
        return None
    device_id, _, module_id = client_id.partition("/")
    if not device_id or "/" in module_id:
        return None
    query = parse_query(rest[len(client_id) :].lstrip("/").removeprefix("?"))
    if "\0" in query.get("model-id", ""):
        return None  # it is stamped on every message, and no database here stores such text
    return HubUserName(
        host,
        device_id,
        module_id,
        query.get("api-version", ""),
        query.get("deviceclienttype", ""),
        query.get("model-id", ""),
    )


def parse_query(text: str) -> dict[str, str]:
    """``a=b&c=d``, keys in lower case, values percent-decoded (``+`` is a plus); the first of doubles wins."""
    items: dict[str, str] = {}
    for piece in text.split("&"):
        key, separator, value = piece.partition("=")
        if separator:
            items.setdefault(key.lower(), unquote(value))
    return items


def parse_registration_topic(topic: str) -> RegistrationRequest | None:
    """A register or status request, or None for another topic. ``$rid`` is taken as it stands, to be echoed.

    A request whose ``$rid`` leaves no room for the topic of its answer counts as another topic.
    """
    if len(topic.encode()) > _LONGEST_TOPIC:
        return None
    if (match := _REGISTER.fullmatch(topic)) is not None:
        return RegistrationRequest(_raw_items(match[1]).get("$rid", ""), None)
    if (match := _OPERATION_STATUS.fullmatch(topic)) is not None:
        items = _raw_items(match[1])
        return RegistrationRequest(items.get("$rid", ""), unquote(items.get("operationId", "")))
    return None


def _raw_items(text: str) -> dict[str, str]:
    return {key: value for key, separator, value in (piece.partition("=") for piece in text.split("&")) if separator}


def registration_response(status: int, rid: str, retry_after: int | None = None) -> str:
    """The topic of an answer: ``$rid`` first and verbatim, ``retry-after`` last (dps.md 2.5)."""
    tail = "" if retry_after is None else f"&retry-after={retry_after}"
    return f"{REGISTRATION_RESPONSES}{status}/?$rid={rid}{tail}"


def telemetry_prefix(device_id: str, module_id: str) -> str:
    """What a telemetry topic of this identity begins with; the property bag follows behind a slash."""
    if module_id:
        return f"devices/{device_id}/modules/{module_id}/messages/events"
    return f"devices/{device_id}/messages/events"


def c2d_topic(device_id: str, module_id: str, bag: str) -> str:
    """Where an identity gets a message from the cloud: ids as they are, the bag percent-encoded (hub-device.md 5.4)."""
    module = f"/modules/{module_id}" if module_id else ""
    return f"devices/{device_id}{module}/messages/devicebound/{bag}"


def parse_twin_request(topic: str) -> TwinRequest | None:
    """None for another topic. ``$rid`` is taken as it stands, to be echoed."""
    if len(topic.encode()) > _LONGEST_TOPIC:
        return None
    for pattern in (_TWIN_GET, _TWIN_PATCH):
        if (match := pattern.fullmatch(topic)) is not None:
            items = _raw_items(match[1] or "")
            return TwinRequest(pattern is _TWIN_PATCH, items.get("$rid"), items.get("$version"))
    return None


def twin_response(status: int, rid: str, version: int | None = None) -> bytes:
    """The topic of an answer: ``$rid`` first and verbatim, then ``$version`` (hub-device.md 7.1)."""
    tail = "" if version is None else f"&$version={version}"
    return f"$iothub/twin/res/{status}/?$rid={rid}{tail}".encode()


def desired_topic(version: int) -> bytes:
    """Where a device hears of a change of its desired properties (hub-device.md 7.7)."""
    return f"$iothub/twin/PATCH/properties/desired/?$version={version}".encode()


def parse_method_response(topic: str) -> MethodResponse | None:
    """None for another topic, and for a status that is no 32-bit number."""
    match = _METHOD_ANSWER.fullmatch(topic)
    if match is None or not -(2**31) <= int(match[1]) < 2**31:
        return None
    return MethodResponse(int(match[1]), _raw_items(match[2]).get("$rid", ""))


def method_topic(name: str, rid: str) -> bytes:
    """Where a device is asked; nothing may follow the rid, and the name stands as it is (hub-device.md 6.1)."""
    return f"$iothub/methods/POST/{name}/?$rid={rid}".encode()
