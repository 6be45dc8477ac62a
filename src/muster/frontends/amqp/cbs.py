"""The ``$cbs`` node: tokens put on a live AMQP connection. Sources: hub-device.md 9.2, hub-service.md 6.3.

``status-code`` is an AMQP int, and 200 (uamqp, Node). Not here: whether a token counts (``amqp/claims.py``), and how
requests come and replies go (``amqp/requests.py``).
"""

from functools import partial
from typing import Final

from muster.domain.errors import (
    ArgumentInvalidError,
    InvalidSignatureError,
    NotAllowedError,
    ServerError,
    ServiceError,
)
from muster.frontends.amqp.addresses import Address
from muster.frontends.amqp.links import LinkContext, LinkOpening
from muster.frontends.amqp.requests import RequestNode
from muster.observe import Operation
from muster.wire.amqp_messages import AmqpValue, Data, Message
from muster.wire.amqp_performatives import lookup
from muster.wire.amqp_sessions import Link
from muster.wire.amqp_types import Int, Value

_NODE: Final = "$cbs"
_OK: Final = 200
_INVALID_SIGNATURE: Final = (
    "The specified SAS token has an invalid signature. It does not match either the primary or secondary key."
)


async def _answer(context: LinkContext, message: Message) -> Message:
    name = lookup(message.application_properties, "name")
    operation = Operation("put-token", name if isinstance(name, str) else "")
    code, description = _OK, "OK"
    try:
        await _perform(context, message, name)
    except ServiceError as error:
        tracking_id = error.tracking_id or context.tracking_id()
        operation.finished(error.code, tracking_id)
        why = _INVALID_SIGNATURE if isinstance(error, InvalidSignatureError) else error.message
        code, description = error.status, f"{error.name}: {why} Tracking ID:{tracking_id}"
    except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
        tracking_id = context.tracking_id()
        operation.failed(tracking_id)
        code, description = ServerError().status, f"{ServerError.message} Tracking ID:{tracking_id}"
    else:
        operation.finished("accepted")
    outcome: dict[Value, Value] = {"status-code": Int(code), "status-description": description}
    return Message(application_properties=outcome, body=AmqpValue(None))


async def _perform(context: LinkContext, message: Message, name: Value) -> None:
    claims = context.claims
    audience = name if isinstance(name, str) else ""
    match lookup(message.application_properties, "operation"):
        case "put-token":
            await claims.put(_token(message), audience)
        case "delete-token":
            claims.delete(audience)
        case _:
            raise NotAllowedError("operation is neither put-token nor delete-token.")


async def open_cbs(context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
    """The opener of ``$cbs``, for which nobody has to have proved anything yet."""
    if address.words != (_NODE,):
        return None
    node: RequestNode | None = context.shared.get(_NODE)
    if node is None:
        node = context.shared[_NODE] = RequestNode(context, partial(_answer, context))
    return node.open(link)


def _token(message: Message) -> str:
    """Raises ArgumentInvalidError."""
    match message.body:
        case AmqpValue(value=str() as text):
            return text
        case AmqpValue(value=bytes() as octets):
            return octets.decode(errors="replace")
        case Data() as data:
            return data.joined().decode(errors="replace")
    raise ArgumentInvalidError("The body holds no token.")
