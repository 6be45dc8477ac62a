"""Bytes to AMQP 1.0 values (part 1 of the OASIS standard).

*Whatever the bytes, `decode` returns a value or raises `DecodeError`.* Bounds: `MAX_DEPTH` levels of lists, maps,
arrays and described values; no count is believed that the bytes at hand cannot hold; arrays of elements without
bytes hold `MAX_EMPTY_ELEMENTS`. Tolerated, because pyamqp writes it: an empty array without an element
constructor. Written so that mypyc can compile it.
"""

from collections.abc import Callable
from typing import Final

from muster.wire.amqp_types import (
    ARRAY_8,
    ARRAY_32,
    BINARY_8,
    BINARY_32,
    BOOLEAN,
    DESCRIBED,
    F32,
    F64,
    FALSE,
    LIST_0,
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
    TRUE,
    U32,
    Array,
    Byte,
    Char,
    Decimal32,
    Decimal64,
    Decimal128,
    DecodeError,
    Described,
    Double,
    Float,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
    Uuid,
    Value,
    is_character,
)


def decode(data: bytes, position: int = 0) -> tuple[Value, int]:
    """The value whose constructor is at `position`, and where the next one starts."""
    return _decode(data, position, len(data), 0)


def decode_one(data: bytes) -> Value:
    """The one value that these bytes are. Raises DecodeError also when something follows it."""
    value, position = _decode(data, 0, len(data), 0)
    if position != len(data):
        raise DecodeError(f"{len(data) - position} bytes follow the value")
    return value


def _decode(data: bytes, position: int, end: int, depth: int) -> tuple[Value, int]:
    if position >= end:
        raise DecodeError("the bytes end where a constructor should be")
    code = data[position]
    if code == DESCRIBED:
        _require_depth(depth)
        descriptor, position = _decode(data, position + 1, end, depth + 1)
        value, position = _decode(data, position, end, depth + 1)
        return Described(descriptor, value), position
    return _decode_content(code, data, position + 1, end, depth)


def _decode_content(code: int, data: bytes, position: int, end: int, depth: int) -> tuple[Value, int]:
    """The value of this constructor whose bytes, without it, start at `position`."""
    if code == NULL:
        return None, position
    if code in (STRING_8, SYMBOL_8) and position < end:
        following = position + 1 + data[position]
        if following <= end:
            octets = data[position + 1 : following]
            return (_decode_string(octets) if code == STRING_8 else _decode_symbol(octets)), following
    width = _WIDTHS[code >> 4]
    if code in _FIXED:
        following = _following(code, position, width, end)
        if code == LIST_0:
            _require_depth(depth)
        return _FIXED[code](data[position:following]), following
    if code not in _VARIABLE and code not in _COMPOUND:
        raise DecodeError(f"there is no constructor 0x{code:02x} (section 1.6)")
    prefix = width >> 8
    start = _following(code, position, prefix, end)
    following = _following(code, start, int.from_bytes(data[position:start], "big"), end)
    if code in _VARIABLE:
        return _VARIABLE[code](data[start:following]), following
    _require_depth(depth)
    if start + prefix > following:
        raise DecodeError(f"a value 0x{code:02x} has no count")
    count = int.from_bytes(data[start : start + prefix], "big")
    return _COMPOUND[code](count, data, start + prefix, following, depth + 1), following


def _following(code: int, position: int, width: int, end: int) -> int:
    if position + width > end:
        raise DecodeError(f"a value 0x{code:02x} ends too early")
    return position + width


def _require_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise DecodeError(f"values are nested deeper than {MAX_DEPTH} levels")


def _decode_items(count: int, data: bytes, position: int, end: int, depth: int) -> "list[Value]":
    if count > end - position:
        raise DecodeError(f"{count} values do not fit into {end - position} bytes")
    items: list[Value] = []
    for _ in range(count):
        item, position = _decode(data, position, end, depth)
        items.append(item)
    if position != end:
        raise DecodeError(f"{end - position} bytes follow the last value of a list or map")
    return items


def _decode_list(count: int, data: bytes, position: int, end: int, depth: int) -> Value:
    return _decode_items(count, data, position, end, depth)


def _decode_map(count: int, data: bytes, position: int, end: int, depth: int) -> Value:
    items = _decode_items(count, data, position, end, depth)
    if len(items) % 2:
        raise DecodeError("a map has a key without a value (section 1.6.23)")
    found: dict[Value, Value] = {}
    for index in range(0, len(items), 2):
        key = items[index]
        if isinstance(key, (list, dict, Array, Described)):
            raise DecodeError("a map key that is no scalar")
        if key in found:
            raise DecodeError(f"a map has the key {key!r} twice (section 1.6.23)")
        found[key] = items[index + 1]
    return found


def _decode_array(count: int, data: bytes, position: int, end: int, depth: int) -> Value:
    if count == 0 and position == end:
        return Array(NULL, [])
    descriptors: list[Value] = []
    while position < end and data[position] == DESCRIBED:
        _require_depth(depth + len(descriptors))
        descriptor, position = _decode(data, position + 1, end, depth)
        descriptors.append(descriptor)
    if position >= end:
        raise DecodeError("an array has no element constructor (section 1.6.24)")
    code = data[position]
    position += 1
    most = MAX_EMPTY_ELEMENTS if _WIDTHS[code >> 4] == 0 else end - position
    if count > most:
        raise DecodeError(f"an array of {count} elements, where {most} can be")
    if count == 0 and code not in _FIXED and code not in _VARIABLE and code not in _COMPOUND:
        raise DecodeError(f"there is no constructor 0x{code:02x} (section 1.6)")
    elements: list[Value] = []
    for _ in range(count):
        element, position = _decode_content(code, data, position, end, depth)
        elements.append(element)
    if position != end:
        raise DecodeError(f"{end - position} bytes follow the last element of an array")
    return Array(code, elements, descriptors)


def _decode_boolean(octets: bytes) -> Value:
    if octets == b"\x00":
        return False
    if octets == b"\x01":
        return True
    raise DecodeError(f"a boolean of 0x{octets.hex()} (section 1.6.2)")


def _decode_char(octets: bytes) -> Value:
    code_point = U32.unpack(octets)[0]
    if not is_character(code_point):
        raise DecodeError(f"there is no character 0x{code_point:x} (section 1.6.16)")
    return Char(code_point)


def _decode_string(octets: bytes) -> Value:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise DecodeError("a string is not UTF-8 (section 1.6.20)") from None


def _decode_symbol(octets: bytes) -> Value:
    if not octets.isascii():
        raise DecodeError("a symbol is not ASCII (section 1.6.21)")
    return Symbol(octets.decode("ascii"))


def _decode_binary(octets: bytes) -> Value:
    return octets


# By the upper four bits of the constructor: bytes of a fixed width, or those of the size shifted by 8 (section 1.2).
_WIDTHS: Final = (-1, -1, -1, -1, 0, 1, 2, 4, 8, 16, 0x100, 0x400, 0x100, 0x400, 0x100, 0x400)

_FIXED: Final[dict[int, Callable[[bytes], Value]]] = {
    NULL: lambda _: None,
    TRUE: lambda _: True,
    FALSE: lambda _: False,
    BOOLEAN: _decode_boolean,
    0x50: lambda octets: Ubyte(octets[0]),
    0x60: lambda octets: Ushort(int.from_bytes(octets, "big")),
    0x43: lambda _: Uint(0),
    0x52: lambda octets: Uint(octets[0]),
    0x70: lambda octets: Uint(int.from_bytes(octets, "big")),
    0x44: lambda _: Ulong(0),
    0x53: lambda octets: Ulong(octets[0]),
    0x80: lambda octets: Ulong(int.from_bytes(octets, "big")),
    0x51: lambda octets: Byte(int.from_bytes(octets, "big", signed=True)),
    0x61: lambda octets: Short(int.from_bytes(octets, "big", signed=True)),
    0x54: lambda octets: Int(int.from_bytes(octets, "big", signed=True)),
    0x71: lambda octets: Int(int.from_bytes(octets, "big", signed=True)),
    0x55: lambda octets: Long(int.from_bytes(octets, "big", signed=True)),
    0x81: lambda octets: Long(int.from_bytes(octets, "big", signed=True)),
    0x72: lambda octets: Float(F32.unpack(octets)[0]),
    0x82: lambda octets: Double(F64.unpack(octets)[0]),
    0x74: Decimal32,
    0x84: Decimal64,
    0x94: Decimal128,
    0x73: _decode_char,
    0x83: lambda octets: Timestamp(int.from_bytes(octets, "big", signed=True)),
    0x98: Uuid,
    LIST_0: lambda _: [],
}
_VARIABLE: Final[dict[int, Callable[[bytes], Value]]] = {
    BINARY_8: _decode_binary,
    BINARY_32: _decode_binary,
    STRING_8: _decode_string,
    STRING_32: _decode_string,
    SYMBOL_8: _decode_symbol,
    SYMBOL_32: _decode_symbol,
}
_COMPOUND: Final[dict[int, Callable[[int, bytes, int, int, int], Value]]] = {
    LIST_8: _decode_list,
    LIST_32: _decode_list,
    MAP_8: _decode_map,
    MAP_32: _decode_map,
    ARRAY_8: _decode_array,
    ARRAY_32: _decode_array,
}
