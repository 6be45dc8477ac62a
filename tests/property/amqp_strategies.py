"""Hypothesis strategies for AMQP values that the protocol can carry."""

from hypothesis import strategies as st

from muster.wire import amqp_types as t

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ascii_text = st.text(st.characters(max_codepoint=127), max_size=12)
symbols = st.builds(t.Symbol, ascii_text)
uint = st.integers(0, 2**32 - 1)


def fixed(width):
    return st.binary(min_size=width, max_size=width)


by_code = {
    0x40: st.none(),
    0x56: st.booleans(),
    0x50: st.builds(t.Ubyte, st.integers(0, 255)),
    0x60: st.builds(t.Ushort, st.integers(0, 65_535)),
    0x70: st.builds(t.Uint, uint),
    0x80: st.builds(t.Ulong, st.integers(0, 2**64 - 1)),
    0x51: st.builds(t.Byte, st.integers(-128, 127)),
    0x61: st.builds(t.Short, st.integers(-(2**15), 2**15 - 1)),
    0x71: st.builds(t.Int, st.integers(-(2**31), 2**31 - 1)),
    0x81: st.builds(t.Long, st.integers(-(2**63), 2**63 - 1)),
    0x72: st.builds(t.Float, st.floats(width=32)),
    0x82: st.builds(t.Double, st.floats()),
    0x73: st.builds(t.Char, st.characters(exclude_categories=["Cs"]).map(ord)),
    0x83: st.builds(t.Timestamp, st.integers(-(2**63), 2**63 - 1)),
    0x74: st.builds(t.Decimal32, fixed(4)),
    0x84: st.builds(t.Decimal64, fixed(8)),
    0x94: st.builds(t.Decimal128, fixed(16)),
    0x98: st.builds(t.Uuid, fixed(16)),
    0xB0: st.binary(max_size=300),
    0xB1: text,
    0xB3: symbols,
}
scalars = st.one_of(*by_code.values())


def compounds(values):
    lists = st.lists(values, max_size=4)
    maps = st.dictionaries(scalars, values, max_size=4)
    descriptors = symbols | by_code[0x80]
    elements = {**by_code, 0xD0: lists, 0xD1: maps}
    arrays = st.sampled_from(sorted(elements)).flatmap(
        lambda code: st.builds(
            t.Array, st.just(code), st.lists(elements[code], max_size=4), st.lists(descriptors, max_size=1)
        )
    )
    return st.one_of(lists, maps, arrays, st.builds(t.Described, descriptors, values))


values = st.recursive(scalars, compounds, max_leaves=12)
