"""The values of AMQP 1.0 (part 1 of the OASIS standard), every type of it.

Bytes become values in `amqp_decoder`, and values bytes in `amqp_encoder`.

Nothing is lost on the way: what was read as an ulong is written as an ulong. Where a Python type says it all,
it is used: None, bool, str (string), bytes (binary), list, dict (map). Everything else is a small value class
of this module. A plain int or float is not a value: which of ten types would it be? Written so that mypyc can
compile it.

Constructors check nothing. Map keys are scalars: nothing in use has compound ones.
"""

from struct import Struct
from typing import Final, Union

MAX_DEPTH: Final = 16
MAX_EMPTY_ELEMENTS: Final = 32  # in an array of nulls, trues, zeros or empty lists


class DecodeError(Exception):
    """A peer sent bytes that are no AMQP 1.0 value (amqp:decode-error)."""


class Typed:
    """A value whose AMQP type no Python type tells. Equality is by type and value."""

    __slots__ = ()

    def values(self) -> tuple[object, ...]:
        return ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Typed) and type(self) is type(other) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(self.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([repr(value) for value in self.values()])})"


class Integer(Typed):
    """An integer of one of the eight widths."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def values(self) -> tuple[object, ...]:
        return (self.value,)


class Ubyte(Integer):
    __slots__ = ()


class Ushort(Integer):
    __slots__ = ()


class Uint(Integer):
    __slots__ = ()


class Ulong(Integer):
    __slots__ = ()


class Byte(Integer):
    __slots__ = ()


class Short(Integer):
    __slots__ = ()


class Int(Integer):
    __slots__ = ()


class Long(Integer):
    __slots__ = ()


class Timestamp(Integer):
    """Milliseconds since 1970, UTC."""

    __slots__ = ()


class Char(Integer):
    """One Unicode character, by its code point."""

    __slots__ = ()


class Real(Typed):
    """A binary floating point number. Equality is by bits: NaN equals itself, -0.0 is not 0.0."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value

    def values(self) -> tuple[object, ...]:
        return (F64.pack(self.value),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class Float(Real):
    """32 bits."""

    __slots__ = ()


class Double(Real):
    """64 bits."""

    __slots__ = ()


class Opaque(Typed):
    """A value of fixed width that is kept as its bytes."""

    __slots__ = ("octets",)

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def values(self) -> tuple[object, ...]:
        return (self.octets,)


class Decimal32(Opaque):
    __slots__ = ()


class Decimal64(Opaque):
    __slots__ = ()


class Decimal128(Opaque):
    __slots__ = ()


class Uuid(Opaque):
    """16 bytes in the order of RFC 4122."""

    __slots__ = ()


class Symbol(Typed):
    """A name from a constrained domain: ASCII."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def values(self) -> tuple[object, ...]:
        return (self.text,)


class Described(Typed):
    """A value with a descriptor, an ulong or a symbol as a rule, that says what it means."""

    __slots__ = ("descriptor", "value")

    def __init__(self, descriptor: "Value", value: "Value") -> None:
        self.descriptor = descriptor
        self.value = value

    def values(self) -> tuple[object, ...]:
        return (self.descriptor, self.value)


class Array(Typed):
    """Values of one type. `code` is a constructor of that type, as given: an empty array has a type too.

    Elements of a described type are plain values here; `descriptors` says how they are described, outermost
    first.
    """

    __slots__ = ("code", "descriptors", "elements")

    def __init__(self, code: int, elements: "list[Value]", descriptors: "list[Value] | None" = None) -> None:
        self.code = WIDEST.get(code, code)
        self.elements = elements
        self.descriptors: list[Value] = [] if descriptors is None else descriptors

    def values(self) -> tuple[object, ...]:
        return (self.code, self.elements, self.descriptors)


Value = Union[None, bool, str, bytes, Typed, "list[Value]", "dict[Value, Value]"]

# Constructors (section 1.6)
DESCRIBED: Final = 0x00
NULL: Final = 0x40
TRUE: Final = 0x41
FALSE: Final = 0x42
LIST_0: Final = 0x45
BOOLEAN: Final = 0x56
BINARY_8: Final = 0xA0
BINARY_32: Final = 0xB0
STRING_8: Final = 0xA1
STRING_32: Final = 0xB1
SYMBOL_8: Final = 0xA3
SYMBOL_32: Final = 0xB3
LIST_8: Final = 0xC0
LIST_32: Final = 0xD0
MAP_8: Final = 0xC1
MAP_32: Final = 0xD1
ARRAY_8: Final = 0xE0
ARRAY_32: Final = 0xF0

U32: Final = Struct(">I")
F32: Final = Struct(">f")
F64: Final = Struct(">d")

# Another constructor of a type -> the one that holds all its values, which names the type of an array.
WIDEST: Final = {
    TRUE: BOOLEAN,
    FALSE: BOOLEAN,
    0x43: 0x70,
    0x52: 0x70,
    0x44: 0x80,
    0x53: 0x80,
    0x54: 0x71,
    0x55: 0x81,
    LIST_0: LIST_32,
    LIST_8: LIST_32,
    MAP_8: MAP_32,
    ARRAY_8: ARRAY_32,
    BINARY_8: BINARY_32,
    STRING_8: STRING_32,
    SYMBOL_8: SYMBOL_32,
}

# Type -> the constructor of full width, that of one byte or 0, is it signed, and how many bytes it is wide.
INTEGERS: Final[dict[type, tuple[int, int, bool, int]]] = {
    Ubyte: (0x50, 0, False, 1),
    Ushort: (0x60, 0, False, 2),
    Uint: (0x70, 0x52, False, 4),
    Ulong: (0x80, 0x53, False, 8),
    Byte: (0x51, 0, True, 1),
    Short: (0x61, 0, True, 2),
    Int: (0x71, 0x54, True, 4),
    Long: (0x81, 0x55, True, 8),
    Char: (0x73, 0, False, 4),
    Timestamp: (0x83, 0, True, 8),
}


def is_character(code_point: int) -> bool:
    """Is there a Unicode character of this code point?"""
    return 0 <= code_point <= 0x10FFFF and not 0xD800 <= code_point <= 0xDFFF
