"""AMQP 1.0 frames: those that azure-eventhub's pyamqp writes are read, ours have all fields, faults are told."""

import pytest

from muster.wire.amqp_composites import decode_composite, encode_composite
from muster.wire.amqp_frames import (
    DECODE_ERROR,
    EMPTY_FRAME,
    FRAMING_ERROR,
    Frame,
    FrameFault,
    FrameReader,
    ProtocolHeader,
    encode_frame,
)
from muster.wire.amqp_performatives import (
    SELECTOR_DESCRIPTOR,
    SELECTOR_FILTER,
    Accepted,
    Attach,
    Begin,
    Close,
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
    lookup,
)
from muster.wire.amqp_types import DecodeError, Described, Int, Long, Symbol, Ulong

LATEST = "amqp.annotation.x-opt-offset > '@latest'"
SOURCE = Source(
    "hub/ConsumerGroups/$default/Partitions/0",
    filter={Symbol(SELECTOR_FILTER): Described(Symbol(SELECTOR_FILTER), LATEST)},
)
ATTACH = Attach(
    "link-1",
    0,
    True,
    1,
    0,
    SOURCE,
    Target("me"),
    max_message_size=1_048_576,
    desired_capabilities=("com.microsoft:enable-receiver-runtime-metric",),
    properties={Symbol("com.microsoft:epoch"): Long(5)},
)
OPEN = Open(
    "c1",
    "hub.example",
    65_536,
    255,
    240_000,
    outgoing_locales=("en-US",),
    desired_capabilities=("cap",),
    properties={Symbol("product"): "muster"},
)
REDIRECT = Error("amqp:link:redirect", "go", {Symbol("hostname"): "h", Symbol("port"): Int(5671)})

# Written by azure-eventhub 5.15.1 (pyamqp).
PYAMQP = {
    "open": (
        OPEN,
        (
            "0000005a02000000005310c04d0aa1026331a10b6875622e6578616d706c6570000100006000ff700003a980e00b01b300000005656e2d5553"
            "4040e00901b300000003636170c11202a30770726f64756374a1066d7573746572"
        ),
    ),
    "begin": (Begin(None, 1, 5000, 5000, 255), "0000002002000000005311c013084052017000001388700000138852ff404040"),
    "attach": (
        ATTACH,
        (
            "0000015602000000005312d0000001460000000ea1066c696e6b2d3143560150015000005328c0b50ba1286875622f436f6e"
            "73756d657247726f7570732f2464656661756c742f506172746974696f6e732f3043a30b73657373696f6e2d656e64435600"
            "4040c17202a3216170616368652e6f72673a73656c6563746f722d66696c7465723a737472696e6700a3216170616368652e"
            "6f72673a73656c6563746f722d66696c7465723a737472696e67a128616d71702e616e6e6f746174696f6e2e782d6f70742d"
            "6f6666736574203e2027406c617465737427404040005329c01807a1026d6543a30b73657373696f6e2d656e644356004040"
            "4056004080000000000010000040e03201b30000002c636f6d2e6d6963726f736f66743a656e61626c652d72656365697665"
            "722d72756e74696d652d6d6574726963c11802a313636f6d2e6d6963726f736f66743a65706f63685505"
        ),
    ),
    "flow": (
        Flow(0, 5000, 1, 5000, 0, 0, 300),
        "0000002802000000005313c01b0b437000001388520170000013884343700000012c405600560040",
    ),
    "transfer": (
        Transfer(3, 7, b"\0\0\0\7", 0, False),
        "0000002c02000000005314c0180b52035207a00400000007435600560040405600560056005041594c4f4144",
    ),
    "disposition": (
        Disposition(True, 7, 9, True, Accepted()),
        "0000001c02000000005315c00f065601520752095601005324455600",
    ),
    "rejected": (
        Disposition(True, 7, 9, True, Rejected(Error("amqp:not-found", "gone"))),
        (
            "0000003b02000000005315c02e065601520752095601005325c01e0100531dc01803a30e616d71703a6e6f742d666f756e64a104676f6e65"
            "405600"
        ),
    ),
    "modified": (
        Disposition(True, 7, 9, True, Modified(True)),
        "0000002202000000005315c015065601520752095601005327c00503560140405600",
    ),
    "received": (
        Disposition(True, 7, 9, True, Received(1, 2)),
        "0000002202000000005315c015065601520752095601005323c00502520153025600",
    ),
    "released": (
        Disposition(True, 7, 9, True, Released()),
        "0000001c02000000005315c00f065601520752095601005326455600",
    ),
    "detach": (
        Detach(3, True, REDIRECT),
        (
            "0000004b02000000005316c03e035203560100531dc03403a312616d71703a6c696e6b3a7265646972656374a102676fc11904a308686f73"
            "746e616d65a10168a304706f72747100001627"
        ),
    ),
    "end": (End(), "0000000f02000000005317c0020140"),
    "close": (Close(), "0000000f02000000005318c0020140"),
    "sasl-mechanisms": (
        SaslMechanisms(("PLAIN", "ANONYMOUS")),
        "0000002802010000005340c01b01e01802b300000005504c41494e00000009414e4f4e594d4f5553",
    ),
    "sasl-init": (
        SaslInit("PLAIN", b"\0user\0pw", "hub.example"),
        "0000002c02010000005341c01f03a305504c41494ea0080075736572007077a10b6875622e6578616d706c65",
    ),
    "sasl-challenge": (SaslChallenge(b"nonce"), "0000001502010000005342c00801a0056e6f6e6365"),
    "sasl-response": (SaslResponse(b"answer"), "0000001602010000005343c00901a006616e73776572"),
    "sasl-outcome": (SaslOutcome(0, b"Welcome!"), "0000001a02010000005344c00d025000a00857656c636f6d6521"),
}
# Fields of each composite in the standard.
FULL_LENGTH = {
    "open": 10,
    "begin": 8,
    "attach": 14,
    "flow": 11,
    "transfer": 11,
    "disposition": 6,
    "detach": 3,
    "end": 1,
    "close": 1,
    "sasl-mechanisms": 1,
    "sasl-init": 3,
    "sasl-challenge": 1,
    "sasl-response": 1,
    "sasl-outcome": 2,
}


def read(octets):
    return FrameReader().receive(octets)


@pytest.mark.parametrize("name", PYAMQP)
def test_a_frame_of_pyamqp_is_read(name):
    body, octets = PYAMQP[name]
    payload = b"PAYLOAD" if name == "transfer" else b""
    assert read(bytes.fromhex(octets)) == [Frame(0, body, payload)]


@pytest.mark.parametrize("name", PYAMQP)
def test_what_is_written_is_read(name):
    body, _ = PYAMQP[name]
    kind = 0 if name.startswith("sasl") else 7
    assert read(encode_frame(kind, body)) == [Frame(kind, body)]


@pytest.mark.parametrize("name", FULL_LENGTH)
def test_all_fields_are_written(name):
    octets = encode_composite(PYAMQP[name][0])
    assert octets[:2] == b"\x00\x53"
    assert octets[3] in (0xC0, 0xD0)
    count = octets[5] if octets[3] == 0xC0 else int.from_bytes(octets[8:12], "big")
    assert count == FULL_LENGTH[name]


# Ours. Read back by pyamqp's decode_frame when they were pinned: every field at its position, none missing.
OURS = {
    "open": (
        "0000005402000000005310c0470aa1026331a10b6875622e6578616d706c6570000100006000ff700003a980e00801a30565"
        "6e2d55534040e00601a303636170c11202a30770726f64756374a1066d7573746572"
    ),
    "begin": ("0000002002000000005311c013084052017000001388700000138852ff404040"),
    "attach": (
        "0000014f02000000005312d00000013f0000000ea1066c696e6b2d31434150015000005328c0b40ba1286875622f436f6e73"
        "756d657247726f7570732f2464656661756c742f506172746974696f6e732f3043a30b73657373696f6e2d656e6443424040"
        "c17202a3216170616368652e6f72673a73656c6563746f722d66696c7465723a737472696e6700a3216170616368652e6f72"
        "673a73656c6563746f722d66696c7465723a737472696e67a128616d71702e616e6e6f746174696f6e2e782d6f70742d6f66"
        "66736574203e2027406c617465737427404040005329c01707a1026d6543a30b73657373696f6e2d656e6443424040404240"
        "80000000000010000040e02f01a32c636f6d2e6d6963726f736f66743a656e61626c652d72656365697665722d72756e7469"
        "6d652d6d6574726963c11802a313636f6d2e6d6963726f736f66743a65706f63685505"
    ),
    "flow": ("0000002602000000005313c0190b437000001388520170000013884343700000012c40424240"),
    "transfer": ("0000002702000000005314c0130b52035207a0040000000743424240404242425041594c4f4144"),
    "disposition": ("0000001b02000000005315c00e06415207520941005324c0010042"),
    "rejected": (
        "0000003802000000005315c02b06415207520941005325c01e0100531dc01803a30e616d71703a6e6f742d666f756e64a104"
        "676f6e654042"
    ),
    "modified": ("0000001e02000000005315c01106415207520941005327c0040341404042"),
    "received": ("0000001f02000000005315c01206415207520941005323c005025201530242"),
    "released": ("0000001b02000000005315c00e06415207520941005326c0010042"),
    "detach": (
        "0000004a02000000005316c03d0352034100531dc03403a312616d71703a6c696e6b3a7265646972656374a102676fc11904"
        "a308686f73746e616d65a10168a304706f72747100001627"
    ),
    "end": ("0000000f02000000005317c0020140"),
    "close": ("0000000f02000000005318c0020140"),
    "sasl-mechanisms": ("0000002202010000005340c01501e01202a305504c41494e09414e4f4e594d4f5553"),
    "sasl-init": ("0000002c02010000005341c01f03a305504c41494ea0080075736572007077a10b6875622e6578616d706c65"),
    "sasl-challenge": ("0000001502010000005342c00801a0056e6f6e6365"),
    "sasl-response": ("0000001602010000005343c00901a006616e73776572"),
    "sasl-outcome": ("0000001a02010000005344c00d025000a00857656c636f6d6521"),
}


@pytest.mark.parametrize("name", OURS)
def test_a_frame_is_written(name):
    payload = b"PAYLOAD" if name == "transfer" else b""
    assert encode_frame(0, PYAMQP[name][0], payload).hex() == OURS[name]


def test_defaults_are_those_of_the_standard():
    assert decode_composite(bytes.fromhex("005310c00401a10163"))[0] == Open("c", None, 0xFFFF_FFFF, 0xFFFF)
    assert decode_composite(bytes.fromhex("005314c003015203"))[0] == Transfer(3)
    assert decode_composite(bytes.fromhex("00531845"))[0] == Close()


def test_descriptors_may_be_symbols():
    name = b"amqp:close:list"
    assert decode_composite(b"\x00\xa3" + bytes([len(name)]) + name + b"\x45")[0] == Close()


def test_texts_may_be_strings_or_symbols_and_arrays_single():
    assert decode_composite(bytes.fromhex("00531dc00401a10178"))[0] == Error("x")
    assert decode_composite(bytes.fromhex("005340c00401a30178"))[0] == SaslMechanisms(("x",))


def test_an_unknown_delivery_state_stays_described():
    state = Described(Ulong(0x34), [b"txn"])
    body = Disposition(True, 0, state=state)
    assert decode_composite(encode_composite(body))[0] == body


def test_a_coordinator_stays_described():
    body = Attach("txn", 0, False, target=Described(Ulong(0x30), [None]))
    assert decode_composite(encode_composite(body))[0] == body


@pytest.mark.parametrize("descriptor", [Symbol(SELECTOR_FILTER), Ulong(SELECTOR_DESCRIPTOR)])
@pytest.mark.parametrize("expression", [LATEST, Symbol(LATEST), LATEST.encode()])
@pytest.mark.parametrize("key", [Symbol(SELECTOR_FILTER), SELECTOR_FILTER, Symbol("selector")])
def test_a_selector_in_every_spelling(descriptor, expression, key):
    source = Source("a", filter={Symbol("other"): None, key: Described(descriptor, expression)})
    assert source.selector() == LATEST


def test_no_selector():
    assert Source("a").selector() is None
    assert Source("a", filter={Symbol("other"): Described(Symbol("other"), "x")}).selector() is None
    assert Source("a", filter={Symbol(SELECTOR_FILTER): Int(1)}).selector() is None


def test_lookup_finds_symbols_and_strings():
    assert lookup({Symbol("a"): "1"}, "a") == "1"
    assert lookup({"a": "2"}, "a") == "2"
    assert lookup({}, "a") is lookup(None, "a") is None


def test_no_repr_shows_a_secret():
    for body in (SaslInit("PLAIN", b"secret"), SaslResponse(b"secret"), SaslChallenge(b"secret")):
        assert "secret" not in repr(body)
        assert "<6 bytes>" in repr(body)


@pytest.mark.parametrize(
    "octets, header, supported",
    [
        ("414d515000010000", ProtocolHeader(0), True),
        ("414d515003010000", ProtocolHeader(3), True),
        ("414d515002010000", ProtocolHeader(2), False),
        ("414d515000000901", ProtocolHeader(0, 0, 9, 1), False),
    ],
)
def test_protocol_headers(octets, header, supported):
    assert read(bytes.fromhex(octets)) == [header]
    assert header.encode().hex() == octets
    assert header.supported == supported


def test_an_empty_frame():
    assert read(EMPTY_FRAME) == [Frame(0, None)]
    assert encode_frame(0, None) == EMPTY_FRAME


def test_an_extended_header_is_skipped():
    assert read(bytes.fromhex("0000001303000000cafecafe005318c0020140")) == [Frame(0, Close())]


@pytest.mark.parametrize(
    "octets, condition, reason",
    [
        ("00000007", FRAMING_ERROR, "a frame of 7 bytes"),
        ("00010001", FRAMING_ERROR, "65536 is the most"),
        ("16030100", FRAMING_ERROR, "65536 is the most"),
        ("0000000801000000", FRAMING_ERROR, "data offset of 1"),
        ("0000000803000000", FRAMING_ERROR, "data offset of 3"),
        ("0000000802020000", FRAMING_ERROR, "type 2"),
        ("0000000802010000", FRAMING_ERROR, "empty SASL"),
        ("0000000c0201000000531845", FRAMING_ERROR, "Close in a frame of type 1"),
        ("0000000d020000000053184500", FRAMING_ERROR, "1 bytes follow Close"),
        ("0000000c0200000000536045", DECODE_ERROR, "nothing is described"),
        ("000000090200000040", DECODE_ERROR, "a described list"),
        ("0000000c0200000000531840", DECODE_ERROR, "close is no list"),
        ("0000000c0200000000531045", DECODE_ERROR, "open.container_id is mandatory"),
        ("0000001002000000005318c003024040", DECODE_ERROR, "where 1 can be"),
        ("0000000f02000000005318c0020141", DECODE_ERROR, "close.error: a error"),
        ("0000000b02000000005318", DECODE_ERROR, "where a constructor should be"),
    ],
)
def test_faults(octets, condition, reason):
    reader = FrameReader()
    found = reader.receive(bytes.fromhex(octets))
    assert isinstance(found[-1], FrameFault)
    assert found[-1].condition == condition
    assert reason in found[-1].reason
    assert reader.receive(EMPTY_FRAME) == []
    assert reader.buffered == 0


def test_frames_before_a_fault_are_delivered():
    found = read(EMPTY_FRAME + b"\x00\x00\x00\x01")
    assert found[0] == Frame(0, None)
    assert isinstance(found[1], FrameFault)


@pytest.mark.parametrize("size", [0, 511, 0x414D5150])
def test_a_max_frame_size_that_cannot_be(size):
    with pytest.raises(ValueError, match="max-frame-size"):
        FrameReader(size)


def test_what_cannot_be_written():
    with pytest.raises(ValueError, match="channel"):
        encode_frame(65_536, Close())
    with pytest.raises(ValueError, match="payload"):
        encode_frame(0, Close(), b"x")
    with pytest.raises((ValueError, TypeError)):  # a field that must be there; compiled, a field of that type
        encode_frame(0, Begin(0, None, 1, 1))
    with pytest.raises(ValueError, match="does not fit"):
        encode_frame(0, Begin(0, -1, 1, 1))


def test_a_composite_is_no_other_value():
    with pytest.raises(DecodeError):
        decode_composite(b"\x40")
