"""Hypothesis strategies for AMQP values, messages and frames that the protocol can carry."""

from hypothesis import strategies as st

from muster.wire import amqp_messages as m
from muster.wire import amqp_performatives as p
from muster.wire import amqp_types as t
from muster.wire.amqp_frames import Frame

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

# Frames: a few of each field's kind, so that a frame stays small

ushort = st.integers(0, 65_535)
ubyte = st.integers(0, 255)
ulong = st.integers(0, 2**64 - 1)
binary = st.binary(max_size=20)
names = st.none() | st.lists(ascii_text, min_size=1, max_size=3).map(tuple)
maps = st.none() | st.dictionaries(symbols, scalars, max_size=3)
errors = st.builds(p.Error, ascii_text, st.none() | text, maps)
states = st.one_of(
    st.none(),
    st.builds(p.Received, uint, ulong),
    st.builds(p.Accepted),
    st.builds(p.Rejected, st.none() | errors),
    st.builds(p.Released),
    st.builds(p.Modified, st.none() | st.booleans(), st.none() | st.booleans(), maps),
)
sources = st.builds(p.Source, st.none() | text, filter=maps, default_outcome=states, outcomes=names)
targets = st.builds(p.Target, st.none() | text, capabilities=names)
bodies = st.one_of(
    st.builds(p.Open, text, st.none() | text, uint, ushort, st.none() | uint, names, names, names, names, maps),
    st.builds(p.Begin, st.none() | ushort, uint, uint, uint, uint, names, names, maps),
    st.builds(
        p.Attach,
        text,
        uint,
        st.booleans(),
        ubyte,
        ubyte,
        st.none() | sources,
        st.none() | targets,
        max_message_size=st.none() | ulong,
        properties=maps,
    ),
    st.builds(p.Flow, st.none() | uint, uint, uint, uint, st.none() | uint, st.none() | uint, drain=st.booleans()),
    st.builds(p.Transfer, uint, st.none() | uint, st.none() | binary, st.none() | uint, state=states),
    st.builds(p.Disposition, st.booleans(), uint, st.none() | uint, st.booleans(), states),
    st.builds(p.Detach, uint, st.booleans(), st.none() | errors),
    st.builds(p.End, st.none() | errors),
    st.builds(p.Close, st.none() | errors),
)
sasl_bodies = st.one_of(
    st.builds(p.SaslMechanisms, st.lists(ascii_text, min_size=1, max_size=3).map(tuple)),
    st.builds(p.SaslInit, ascii_text, st.none() | binary, st.none() | text),
    st.builds(p.SaslChallenge, binary),
    st.builds(p.SaslResponse, binary),
    st.builds(p.SaslOutcome, ubyte, st.none() | binary),
)
frames = st.one_of(
    st.builds(Frame, ushort, bodies),
    st.builds(Frame, ushort, st.none()),
    st.builds(Frame, ushort, st.builds(p.Transfer, uint), binary),
    st.builds(Frame, st.just(0), sasl_bodies),
)
messages = st.builds(
    m.Message,
    st.none() | st.builds(m.Header, st.booleans(), ubyte, st.none() | uint, st.booleans(), uint),
    maps,
    maps,
    st.none() | st.builds(m.Properties, scalars, st.none() | binary, st.none() | text, content_type=ascii_text),
    maps,
    st.one_of(
        st.none(),
        st.builds(m.AmqpValue, values),
        st.builds(m.Data, st.lists(binary, min_size=1, max_size=3).map(tuple)),
        st.builds(m.AmqpSequence, st.lists(st.lists(scalars, max_size=3), min_size=1, max_size=3).map(tuple)),
    ),
    maps,
)
