"""Reading an error answer, in whichever of five shapes it comes: one message, Azure's code, the tracking id.

Shapes: DPS and newer hub gateways, classic hub, the first as a string inside the second, and Resource Manager
(hub-service.md 1.6, dps.md 1.10, 7.3); the first as the description of an AMQP error (hub-device.md 9.9). Not here: the
protocols, and what advice goes with it.
"""

import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an error answer says. ``code`` is 0 and the texts are empty when the answer does not tell them."""

    message: str
    code: int = 0
    name: str = ""
    tracking_id: str = ""


_TRACKING = re.compile(r"Tracking ID:\s*(?P<id>[0-9A-Za-z-]+?)(?:-G:|-TimeStamp:|$)")
_CODE = re.compile(r"^ErrorCode:(?P<name>[^;]*);(?P<text>.*)$", re.DOTALL)


def read_refusal(status: int, reason: str, document: Any) -> Refusal:
    """What the JSON ``document`` of an error says; HTTP's ``status`` and ``reason`` stand in for silence."""
    if isinstance(document, dict):
        if "Message" in document:
            return _classic(document, f"{status} {reason}")
        if isinstance(document.get("error"), dict):
            return _management(document, document["error"], f"{status} {reason}")
        if "errorCode" in document or "message" in document:
            return _modern(document, f"{status} {reason}")
    return Refusal(f"{status} {reason}".strip())


def read_description(name: str, text: str, tracking_id: str = "") -> Refusal:
    """What an AMQP error says: JSON as newer hub gateways write it, else plain text, perhaps with a tracking id.

    ``name`` is the condition, ``tracking_id`` that of its info map.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return _modern(document, name)
    tracking = _TRACKING.search(text)
    message = text[: tracking.start()].strip() if tracking else text.strip()
    return Refusal(message, name=name, tracking_id=tracking["id"] if tracking else tracking_id)


def _modern(document: dict[str, Any], fallback: str) -> Refusal:
    code = document.get("errorCode")
    return Refusal(
        message=str(document.get("message") or fallback),
        code=code if isinstance(code, int) else 0,
        tracking_id=str(document.get("trackingId") or ""),
    )


def _management(document: dict[str, Any], error: dict[str, Any], fallback: str) -> Refusal:
    code = str(document.get("code"))
    return Refusal(
        message=str(error.get("message") or fallback),
        code=int(code) if code.isdecimal() else 0,
        name=str(error.get("code") or ""),
    )


def _classic(document: dict[str, Any], fallback: str) -> Refusal:
    text = str(document["Message"] or "")
    try:
        inner = json.loads(text)
    except ValueError:
        inner = None
    if isinstance(inner, dict):
        return _modern(inner, fallback)
    tracking = _TRACKING.search(str(document.get("ExceptionMessage") or ""))
    code = _CODE.match(text)
    return Refusal(
        message=(code["text"] if code else text).strip() or fallback,
        name=code["name"].strip() if code else "",
        tracking_id=tracking["id"] if tracking else "",
    )
