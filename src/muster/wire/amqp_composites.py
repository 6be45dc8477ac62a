"""The one table of AMQP 1.0's composite types, and what is read and written by it.

A row names a type's descriptor and the wire type of each field. *All fields are always written*, null where
there is nothing: Azure's pyamqp looks for them by position (hub-service.md 8.9). Reading supplies the defaults
of fields that are null or left out. Descriptors are read as ulong or as symbol, written as small ulong.

Tolerated: a string where a symbol should be and the reverse, a single symbol where an array may be. Written so
that mypyc can compile it.
"""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, Final

from muster.wire.amqp_decoder import decode
from muster.wire.amqp_encoder import encode
from muster.wire.amqp_messages import AmqpSequence, AmqpValue, Body, Data, Header, Message, Properties
from muster.wire.amqp_performatives import (
    Accepted,
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Modified,
    Open,
    Received,
    Rejected,
    Released,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
    Source,
    Target,
    Transfer,
)
from muster.wire.amqp_types import (
    BINARY_8,
    BINARY_32,
    DESCRIBED,
    LIST_0,
    LIST_8,
    LIST_32,
    MAP_8,
    MAP_32,
    Array,
    DecodeError,
    Described,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
    Value,
)

# Wire types of fields. A trailing ! in the table: mandatory.
_TABLE: Final[dict[type[Composite], tuple[int, str, str]]] = {
    Open: (0x10, "open", "string! string uint ushort uint symbols symbols symbols symbols map"),
    Begin: (0x11, "begin", "ushort uint! uint! uint! uint symbols symbols map"),
    Attach: (
        0x12,
        "attach",
        "string! uint! boolean! ubyte ubyte source target map boolean uint ulong symbols symbols map",
    ),
    Flow: (0x13, "flow", "uint uint! uint! uint! uint uint uint uint boolean boolean map"),
    Transfer: (
        0x14,
        "transfer",
        "uint! uint binary uint boolean boolean ubyte state boolean boolean boolean",
    ),
    Disposition: (0x15, "disposition", "boolean! uint! uint boolean state boolean"),
    Detach: (0x16, "detach", "uint! boolean error"),
    End: (0x17, "end", "error"),
    Close: (0x18, "close", "error"),
    Error: (0x1D, "error", "symbol! string map"),
    Received: (0x23, "received", "uint! ulong!"),
    Accepted: (0x24, "accepted", ""),
    Rejected: (0x25, "rejected", "error"),
    Released: (0x26, "released", ""),
    Modified: (0x27, "modified", "boolean boolean map"),
    Source: (0x28, "source", "any uint symbol uint boolean map symbol map state symbols symbols"),
    Target: (0x29, "target", "any uint symbol uint boolean map symbols"),
    SaslMechanisms: (0x40, "sasl-mechanisms", "symbols!"),
    SaslInit: (0x41, "sasl-init", "symbol! binary string"),
    SaslChallenge: (0x42, "sasl-challenge", "binary!"),
    SaslResponse: (0x43, "sasl-response", "binary!"),
    SaslOutcome: (0x44, "sasl-outcome", "ubyte! binary"),
    Header: (0x70, "header", "boolean ubyte uint boolean uint"),
    Properties: (
        0x73,
        "properties",
        "any binary string string string any symbol symbol timestamp timestamp string uint string",
    ),
}

DELIVERY_ANNOTATIONS: Final = 0x71
MESSAGE_ANNOTATIONS: Final = 0x72
APPLICATION_PROPERTIES: Final = 0x74
DATA: Final = 0x75
AMQP_SEQUENCE: Final = 0x76
AMQP_VALUE: Final = 0x77
FOOTER: Final = 0x78

_BEFORE_BODY: Final = frozenset({0x70, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, 0x73, APPLICATION_PROPERTIES})

# Sections by their other descriptors, amqp:data:binary and so on.
_SECTIONS: Final = {
    "amqp:delivery-annotations:map": DELIVERY_ANNOTATIONS,
    "amqp:message-annotations:map": MESSAGE_ANNOTATIONS,
    "amqp:application-properties:map": APPLICATION_PROPERTIES,
    "amqp:data:binary": DATA,
    "amqp:amqp-sequence:list": AMQP_SEQUENCE,
    "amqp:amqp-value:*": AMQP_VALUE,
    "amqp:footer:map": FOOTER,
}


PlainTransfer = tuple[int, int, int, int, int | None, bool | None, bool, int]
"""Handle, delivery id, start and end of the tag, message format, settled, more, and where the list ends."""


class _Field:
    __slots__ = ("default", "kind", "mandatory", "name", "read", "write")

    def __init__(self, name: str, kind: str, default: object, *, mandatory: bool) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.mandatory = mandatory
        self.read: Callable[[Value], object] = _READERS[kind]
        self.write: Callable[[Any], Value] = _WRITERS[kind]


class _Row:
    """A line of the table, worked out."""

    __slots__ = ("code", "fields", "make", "name")

    def __init__(self, make: type[Composite], code: int, name: str, kinds: str) -> None:
        self.make: Callable[..., Composite] = make
        self.code = code
        self.name = name
        self.fields: list[_Field] = []
        for field, kind in zip(fields(make), kinds.split(), strict=True):  # type: ignore[arg-type]
            default = None if field.default is MISSING else field.default
            self.fields.append(_Field(field.name, kind.rstrip("!"), default, mandatory=kind.endswith("!")))


# Reading


def code_of(descriptor: Value) -> int:
    """The number of a descriptor, or -1 for one that the standard does not have."""
    if isinstance(descriptor, Ulong):
        return descriptor.value
    if isinstance(descriptor, Symbol):
        return _CODES.get(descriptor.text, -1)
    return -1


def compose(value: Value) -> Composite:
    """The composite that a described list is. DecodeError for any other value."""
    if not isinstance(value, Described):
        raise DecodeError("a described list should be here")
    row = _ROWS.get(code_of(value.descriptor))
    if row is None:
        raise DecodeError(f"nothing is described by {value.descriptor!r:.80}")
    return _compose(row, value.value)


def _compose(row: _Row, content: Value) -> Composite:
    if not isinstance(content, list):
        raise DecodeError(f"{row.name} is no list")
    if len(content) > len(row.fields):
        raise DecodeError(f"{row.name} has {len(content)} fields, where {len(row.fields)} can be")
    found: list[object] = []
    given = len(content)
    for index, field in enumerate(row.fields):
        value = content[index] if index < given else None
        if value is not None:
            try:
                found.append(field.read(value))
            except DecodeError as fault:
                raise DecodeError(f"{row.name}.{field.name}: {fault}") from None
        elif field.mandatory:
            raise DecodeError(f"{row.name}.{field.name} is mandatory")
        else:
            found.append(field.default)
    return row.make(*found)


def decode_composite(data: bytes, position: int = 0) -> tuple[Composite, int]:
    """The composite at `position`, and where it ends."""
    value, position = decode(data, position)
    return compose(value), position


def read_plain_transfer(data: bytes, position: int, limit: int) -> PlainTransfer | None:  # noqa: C901 - calls cost more than branches
    """A transfer as clients write most of them, in a tenth of the time; None for what has to be read as a list."""
    if not data.startswith(_TRANSFER_LIST_8, position) or position + 10 >= limit:
        return None
    at = position + 6
    end = position + 5 + data[position + 4]
    if end > limit or end < at + 4:
        return None
    count = data[position + 5]
    code = data[at]
    if code == 0x43:
        handle, at = 0, at + 1
    elif code == 0x52:
        handle, at = data[at + 1], at + 2
    else:
        return None
    code = data[at]
    if code == 0x52:
        delivery_id, at = data[at + 1], at + 2
    elif code == 0x70:
        delivery_id, at = int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
    elif code == 0x43:
        delivery_id, at = 0, at + 1
    else:
        return None
    if at + 1 >= end or data[at] != BINARY_8:
        return None
    start = at + 2
    at = start + data[at + 1]
    if at > end:
        return None
    rest = _TRANSFER_ENDS.get(data[at:end])
    if rest is None or rest[0] != count:
        return None
    return handle, delivery_id, start, at, rest[1], rest[2], rest[3], end


def _transfer_ends() -> dict[bytes, tuple[int, int | None, bool | None, bool]]:
    """What follows the tag of a plain transfer: how many fields it has then, message format, settled, more."""
    ends: dict[bytes, tuple[int, int | None, bool | None, bool]] = {b"": (3, None, None, False)}
    formats: tuple[tuple[bytes, int | None], ...] = (
        (b"\x43", 0),
        (b"\x40", None),
        (b"\x52\x00", 0),
        (b"\x70\x00\x00\x00\x00", 0),
        (b"\x70\x80\x01\x37\x00", 0x8001_3700),
    )
    flags: tuple[tuple[bytes, bool | None], ...] = ((b"\x40", None), (b"\x42", False), (b"\x41", True))
    # rcv-settle-mode, state, resume, aborted, batchable
    unset = (b"", b"\x40", b"\x40\x40", *[b"\x40\x40" + end for end in (b"\x40", b"\x42", b"\x40\x40", b"\x42\x42")])
    unset += tuple(unset[-2 + index] + batchable for index in (0, 1) for batchable in (b"\x40", b"\x42", b"\x41"))
    for format_bytes, message_format in formats:
        ends[format_bytes] = (4, message_format, None, False)
        for settled_bytes, settled in flags:
            ends[format_bytes + settled_bytes] = (5, message_format, settled, False)
            for more_bytes, more in flags:
                for end in unset:
                    key = format_bytes + settled_bytes + more_bytes + end
                    ends[key] = (6 + len(end), message_format, settled, bool(more))
    return ends


def _wrong(kind: str, value: Value) -> DecodeError:
    return DecodeError(f"a {kind} should be here, not {type(value).__name__}")


def _read_any(value: Value) -> object:
    return value


def _read_boolean(value: Value) -> object:
    if not isinstance(value, bool):
        raise _wrong("boolean", value)
    return value


def _read_binary(value: Value) -> object:
    if not isinstance(value, bytes):
        raise _wrong("binary", value)
    return value


def _read_text(value: Value) -> object:
    if isinstance(value, str):
        return value
    if isinstance(value, Symbol):
        return value.text
    raise _wrong("string or symbol", value)


def _read_symbols(value: Value) -> object:
    items = value.elements if isinstance(value, Array) and not value.descriptors else [value]
    return tuple([_read_text(item) for item in items])


def _read_map(value: Value) -> object:
    if not isinstance(value, dict):
        raise _wrong("map", value)
    return value


def _read_ubyte(value: Value) -> object:
    if not isinstance(value, Ubyte):
        raise _wrong("ubyte", value)
    return value.value


def _read_ushort(value: Value) -> object:
    if not isinstance(value, Ushort):
        raise _wrong("ushort", value)
    return value.value


def _read_uint(value: Value) -> object:
    if not isinstance(value, Uint):
        raise _wrong("uint", value)
    return value.value


def _read_ulong(value: Value) -> object:
    if not isinstance(value, Ulong):
        raise _wrong("ulong", value)
    return value.value


def _read_timestamp(value: Value) -> object:
    if not isinstance(value, Timestamp):
        raise _wrong("timestamp", value)
    return value.value


def _read_composite(value: Value, code: int, kind: str) -> object:
    if not isinstance(value, Described) or code_of(value.descriptor) != code:
        raise _wrong(kind, value)
    return _compose(_ROWS[code], value.value)


def _read_error(value: Value) -> object:
    return _read_composite(value, 0x1D, "error")


def _read_source(value: Value) -> object:
    return _read_composite(value, 0x28, "source")


def _read_target(value: Value) -> object:
    if isinstance(value, Described) and code_of(value.descriptor) == 0x30:
        return value
    return _read_composite(value, 0x29, "target")


def _read_state(value: Value) -> object:
    if not isinstance(value, Described):
        raise _wrong("delivery state", value)
    code = code_of(value.descriptor)
    return _compose(_ROWS[code], value.value) if 0x23 <= code <= 0x27 else value


_READERS: Final[dict[str, Callable[[Value], object]]] = {
    "any": _read_any,
    "boolean": _read_boolean,
    "ubyte": _read_ubyte,
    "ushort": _read_ushort,
    "uint": _read_uint,
    "ulong": _read_ulong,
    "timestamp": _read_timestamp,
    "binary": _read_binary,
    "string": _read_text,
    "symbol": _read_text,
    "symbols": _read_symbols,
    "map": _read_map,
    "error": _read_error,
    "source": _read_source,
    "target": _read_target,
    "state": _read_state,
}

# Writing


def encode_composite(composite: Composite) -> bytes:
    """All its fields. Raises ValueError for what the protocol cannot carry."""
    return encode(describe(composite))


def describe(composite: Composite) -> Described:
    """The described list that a composite is."""
    row = _ROWS_BY_TYPE[type(composite)]
    content: list[Value] = []
    for field in row.fields:
        value = getattr(composite, field.name)
        if value is not None:
            content.append(field.write(value))
        elif field.mandatory:
            raise ValueError(f"{row.name}.{field.name} is mandatory")
        else:
            content.append(None)
    return Described(Ulong(row.code), content)


def _same(value: Value) -> Value:
    return value


def _write_symbols(texts: tuple[str, ...]) -> Value:
    return Array(0xA3, [Symbol(text) for text in texts]) if texts else None


def _write_composite(value: Composite | Described) -> Value:
    return value if isinstance(value, Described) else describe(value)


_WRITERS: Final[dict[str, Callable[[Any], Value]]] = {
    "any": _same,
    "boolean": _same,
    "ubyte": Ubyte,
    "ushort": Ushort,
    "uint": Uint,
    "ulong": Ulong,
    "timestamp": Timestamp,
    "binary": _same,
    "string": _same,
    "symbol": Symbol,
    "symbols": _write_symbols,
    "map": _same,
    "error": _write_composite,
    "source": _write_composite,
    "target": _write_composite,
    "state": _write_composite,
}

_ROWS_BY_TYPE: Final = {make: _Row(make, code, name, kinds) for make, (code, name, kinds) in _TABLE.items()}
_ROWS: Final = {row.code: row for row in _ROWS_BY_TYPE.values()}
_CODES: Final = (
    {f"amqp:{row.name}:list": row.code for row in _ROWS.values()} | _SECTIONS | {"amqp:coordinator:list": 0x30}
)

_TRANSFER_LIST_8: Final = b"\x00\x53\x14\xc0"
_TRANSFER_ENDS: Final = _transfer_ends()

# Messages


def split_data(payload: bytes) -> tuple[bytes, bytes] | None:
    """A message whose last section is its only data section: what is before it, and the data; None for another one.

    Nothing of what is before it is looked at, only where its sections end: `decode_message` reads it.
    """
    position, end = 0, len(payload)
    while position < end:
        following = _section_end(payload, position)
        code = payload[position + 2] if following else -1
        if code == DATA:
            shape = payload[position + 3]
            start = position + (5 if shape == BINARY_8 else 8)
            whole = following == end and shape in (BINARY_8, BINARY_32)
            return (payload[:position], payload[start:]) if whole else None
        if code not in _BEFORE_BODY:
            return None
        position = following
    return None


def split_sections(head: bytes) -> list[tuple[int, bytes]] | None:
    """What `split_data` cut off, section by section: the code of each, and its bytes; None for what is not that.

    They are different ones, and nothing else is certain of them.
    """
    sections: list[tuple[int, bytes]] = []
    position, end = 0, len(head)
    while position < end:
        following = _section_end(head, position)
        code = head[position + 2] if following else -1
        if code not in _BEFORE_BODY or code in [other for other, _ in sections]:
            return None
        sections.append((code, head[position:following]))
        position = following
    return sections


def _section_end(data: bytes, position: int) -> int:
    """Where the section ends that starts here, as clients write most of them; 0 for another one."""
    if position + 4 > len(data) or data[position] != DESCRIBED or data[position + 1] != 0x53:
        return 0
    shape = data[position + 3]
    if shape == LIST_0:
        return position + 4
    if shape in (LIST_8, MAP_8, BINARY_8) and position + 5 <= len(data):
        following = position + 5 + data[position + 4]
    elif shape in (LIST_32, MAP_32, BINARY_32) and position + 8 <= len(data):
        following = position + 8 + int.from_bytes(data[position + 4 : position + 8], "big")
    else:
        return 0
    return following if following <= len(data) else 0


def decode_message(data: bytes) -> Message:
    """The message in a payload. Sections may come in any order: pyamqp writes delivery annotations last."""
    message = Message()
    parts: list[Value] = []
    seen: list[int] = []
    position = 0
    while position < len(data):
        value, position = decode(data, position)
        if not isinstance(value, Described):
            raise DecodeError("a section should be here (section 3.2)")
        code = code_of(value.descriptor)
        if code in seen and not (code == seen[-1] and code in (DATA, AMQP_SEQUENCE)):
            raise DecodeError(f"a second section 0x{code:02x} (section 3.2)")
        seen.append(code)
        if code in (DATA, AMQP_SEQUENCE, AMQP_VALUE):
            parts.append(value.value)
        else:
            _set_section(message, code, value.value)
    bodies = [code for code in seen if code in (DATA, AMQP_SEQUENCE, AMQP_VALUE)]
    if bodies:
        message.body = _body(bodies, parts)
    return message


def _set_section(message: Message, code: int, content: Value) -> None:
    if code in (0x70, 0x73):
        section = _compose(_ROWS[code], content)
        if isinstance(section, Header):
            message.header = section
        elif isinstance(section, Properties):
            message.properties = section
        return
    if not isinstance(content, dict):
        raise DecodeError("a section is no map (section 3.2)")
    if code == DELIVERY_ANNOTATIONS:
        message.delivery_annotations = content
    elif code == MESSAGE_ANNOTATIONS:
        message.message_annotations = content
    elif code == APPLICATION_PROPERTIES:
        message.application_properties = content
    elif code == FOOTER:
        message.footer = content
    else:
        raise DecodeError("there is no such section (section 3.2)")


def _body(codes: list[int], parts: list[Value]) -> Body:
    if len(set(codes)) > 1:
        raise DecodeError("a body of several kinds (section 3.2)")
    if codes[0] == AMQP_VALUE:
        return AmqpValue(parts[0])
    if codes[0] == DATA:
        data = [part for part in parts if isinstance(part, bytes)]
        if len(data) == len(parts):
            return Data(tuple(data))
        raise DecodeError("a data section is no binary (section 3.2.6)")
    lists = [part for part in parts if isinstance(part, list)]
    if len(lists) == len(parts):
        return AmqpSequence(tuple(lists))
    raise DecodeError("a sequence section is no list (section 3.2.7)")


def encode_message(message: Message) -> bytes:
    """Its sections in the order of section 3.2."""
    parts: list[Value] = []
    if message.header is not None:
        parts.append(describe(message.header))
    _add(parts, DELIVERY_ANNOTATIONS, message.delivery_annotations)
    _add(parts, MESSAGE_ANNOTATIONS, message.message_annotations)
    if message.properties is not None:
        parts.append(describe(message.properties))
    _add(parts, APPLICATION_PROPERTIES, message.application_properties)
    if isinstance(message.body, AmqpValue):
        parts.append(Described(Ulong(AMQP_VALUE), message.body.value))
    elif isinstance(message.body, Data):
        parts += [Described(Ulong(DATA), section) for section in message.body.sections]
    elif isinstance(message.body, AmqpSequence):
        parts += [Described(Ulong(AMQP_SEQUENCE), section) for section in message.body.sections]
    _add(parts, FOOTER, message.footer)
    return b"".join([encode(part) for part in parts])


def _add(parts: list[Value], code: int, section: dict[Value, Value] | None) -> None:
    if section is not None:
        parts.append(Described(Ulong(code), section))
