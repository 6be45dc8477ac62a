"""AMQP 1.0 values to bytes (part 1 of the OASIS standard), each in its shortest form.

ValueError is raised for what the protocol cannot carry. Written so that mypyc can compile it.
"""

from typing import Final

from muster.wire.amqp_types import (
    ARRAY_8,
    ARRAY_32,
    BINARY_8,
    BINARY_32,
    BOOLEAN,
    F32,
    F64,
    INTEGERS,
    LIST_8,
    LIST_32,
    MAP_8,
    MAP_32,
    MAX_DEPTH,
    MAX_EMPTY_ELEMENTS,
    NULL,
    STRING_8,
    STRING_32,
    SYMBOL_8,
    SYMBOL_32,
    U32,
    Array,
    Char,
    Decimal32,
    Decimal64,
    Decimal128,
    Described,
    Double,
    Float,
    Integer,
    Opaque,
    Symbol,
    Uuid,
    Value,
    is_character,
)


def encode(value: Value) -> bytes:
    """The shortest bytes of a value, but an empty list is c0 01 00: pyamqp misreads 0x45 (hub-service.md 8.9)."""
    return _encode(value, 0)


def _encode(value: Value, depth: int) -> bytes:
    if isinstance(value, Integer):
        return _encode_integer(value)
    if isinstance(value, (list, dict, Array)):
        return _encode_compound(value, depth)
    if isinstance(value, Described):
        _require_room(depth)
        return b"\x00" + _encode(value.descriptor, depth + 1) + _encode(value.value, depth + 1)
    code = _code_of(value)
    if code == NULL:
        return b"\x40"
    if code == BOOLEAN:
        return b"\x41" if value else b"\x42"
    if code not in _SHORT:
        return bytes([code]) + _fixed_content(value)
    octets = _octets(value)
    if len(octets) <= 0xFF:
        return bytes([_SHORT[code], len(octets)]) + octets
    return bytes([code]) + U32.pack(len(octets)) + octets


def _encode_compound(value: "list[Value] | dict[Value, Value] | Array", depth: int) -> bytes:
    _require_room(depth)
    code = _code_of(value)
    count, body = _compound_body(value, depth + 1)
    if count <= 0xFF and len(body) < 0xFF:
        return bytes([_SHORT[code], len(body) + 1, count]) + body
    return bytes([code]) + U32.pack(len(body) + 4) + U32.pack(count) + body


def _require_room(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise ValueError(f"values are nested deeper than {MAX_DEPTH} levels")


def _encode_integer(value: Integer) -> bytes:
    number = value.value
    code, short, signed, _ = INTEGERS[type(value)]
    if short and not signed and 0 <= number <= 0xFF:
        if number == 0:
            return b"\x43" if code == 0x70 else b"\x44"
        return bytes([short, number])
    if short and signed and -0x80 <= number <= 0x7F:
        return bytes([short, number & 0xFF])
    return bytes([code]) + _fixed_content(value)


def _code_of(value: object) -> int:
    """The constructor of full width for values of this type; that names the type. ValueError if there is none."""
    kind = type(value)
    if kind in INTEGERS:
        return INTEGERS[kind][0]
    code = _CODES.get(kind)
    if code is None:
        raise ValueError(f"a {kind.__name__} is no AMQP value")
    return code


def _fixed_content(value: object) -> bytes:
    """The bytes behind the constructor of full width."""
    if isinstance(value, Char) and not is_character(value.value):
        raise ValueError(f"there is no character 0x{value.value:x} (section 1.6.16)")
    if isinstance(value, Integer):
        _, _, signed, width = INTEGERS[type(value)]
        try:
            return value.value.to_bytes(width, "big", signed=signed)
        except OverflowError:
            raise ValueError(f"{value!r} does not fit") from None
    if isinstance(value, Opaque):
        width = _OPAQUE_WIDTHS[type(value)]
        if len(value.octets) != width:
            raise ValueError(f"{value!r} has not {width} bytes")
        return value.octets
    if isinstance(value, Float):
        try:
            return F32.pack(value.value)
        except OverflowError:
            raise ValueError(f"{value!r} does not fit") from None
    if isinstance(value, Double):
        return F64.pack(value.value)
    return b"\x01" if value else b"\x00"  # a boolean in an array; a null has been dealt with


def _octets(value: object) -> bytes:
    """The bytes of a string, a symbol or a binary."""
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, Symbol):
            return value.text.encode("ascii")
        return str(value).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} cannot be written (sections 1.6.20 and 1.6.21)") from None


def _compound_body(value: "list[Value] | dict[Value, Value] | Array", depth: int) -> tuple[int, bytes]:
    """How many values a list, map or array has, and what follows its count."""
    if isinstance(value, list):
        return len(value), b"".join([_encode(item, depth) for item in value])
    if isinstance(value, Array):
        return len(value.elements), _array_body(value, depth)
    parts: list[bytes] = []
    for key, item in value.items():
        if isinstance(key, (Array, Described)):
            raise ValueError("a map key that is no scalar")  # noqa: TRY004 - a value the protocol cannot carry here
        parts.append(_encode(key, depth))
        parts.append(_encode(item, depth))
    return 2 * len(value), b"".join(parts)


def _array_body(array: Array, depth: int) -> bytes:
    """The element constructor and the elements: the narrow constructor for texts if all fit, else the full one."""
    head = b""
    for level, descriptor in enumerate(array.descriptors):
        _require_room(depth + level)
        head += b"\x00" + _encode(descriptor, depth)
    code = array.code
    if code not in _FIXED and code not in _SHORT:
        raise ValueError(f"there is no constructor 0x{code:02x} (section 1.6)")
    for element in array.elements:
        if _code_of(element) != code:
            raise ValueError(f"{element!r} in an array of 0x{code:02x}")
    if code == NULL:
        if len(array.elements) > MAX_EMPTY_ELEMENTS:
            raise ValueError(f"an array of more than {MAX_EMPTY_ELEMENTS} nulls")
        return head + b"\x40"
    if code not in _SHORT:
        return head + bytes([code]) + b"".join([_fixed_content(element) for element in array.elements])
    if code in (LIST_32, MAP_32, ARRAY_32):
        return head + bytes([code]) + b"".join([_wide(element, depth) for element in array.elements])
    texts = [_octets(element) for element in array.elements]
    if max([len(text) for text in texts], default=0) <= 0xFF:
        return head + bytes([_SHORT[code]]) + b"".join([bytes([len(text)]) + text for text in texts])
    return head + bytes([code]) + b"".join([U32.pack(len(text)) + text for text in texts])


def _wide(value: Value, depth: int) -> bytes:
    """A list, map or array as an element of an array: without constructor, with size and count of four bytes."""
    assert isinstance(value, (list, dict, Array))
    _require_room(depth)
    count, body = _compound_body(value, depth + 1)
    return U32.pack(len(body) + 4) + U32.pack(count) + body


_SHORT: Final = {
    BINARY_32: BINARY_8,
    STRING_32: STRING_8,
    SYMBOL_32: SYMBOL_8,
    LIST_32: LIST_8,
    MAP_32: MAP_8,
    ARRAY_32: ARRAY_8,
}
_CODES: Final[dict[type, int]] = {
    type(None): NULL,
    bool: BOOLEAN,
    str: STRING_32,
    bytes: BINARY_32,
    list: LIST_32,
    dict: MAP_32,
    Symbol: SYMBOL_32,
    Array: ARRAY_32,
    Float: 0x72,
    Double: 0x82,
    Decimal32: 0x74,
    Decimal64: 0x84,
    Decimal128: 0x94,
    Uuid: 0x98,
}
_OPAQUE_WIDTHS: Final[dict[type, int]] = {Decimal32: 4, Decimal64: 8, Decimal128: 16, Uuid: 16}
_FIXED: Final = frozenset({NULL, BOOLEAN, 0x72, 0x82, 0x74, 0x84, 0x94, 0x98, *[row[0] for row in INTEGERS.values()]})
