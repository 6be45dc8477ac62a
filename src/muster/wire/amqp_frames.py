"""AMQP 1.0 frames and protocol headers: from bytes in any chunks, and to bytes (sections 2.2, 2.3 and 5.3).

`FrameReader.receive` never raises for what a peer sent: a `FrameFault` is the last thing it returns then, and it
returns nothing more. One incomplete frame is kept, of at most `max_frame_size` bytes; a larger one is refused as
soon as its size has arrived. Written so that mypyc can compile it.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from muster.wire.amqp_composites import PlainTransfer, decode_composite, encode_composite, read_plain_transfer
from muster.wire.amqp_performatives import Composite, Performative, SaslBody, Transfer
from muster.wire.amqp_types import DecodeError

MIN_MAX_FRAME_SIZE: Final = 512
HEADER_SIZE: Final = 8

AMQP_FRAME: Final = 0
SASL_FRAME: Final = 1

AMQP_PROTOCOL: Final = 0
TLS_PROTOCOL: Final = 2
SASL_PROTOCOL: Final = 3

DECODE_ERROR: Final = "amqp:decode-error"
FRAMING_ERROR: Final = "amqp:connection:framing-error"

_MAGIC: Final = b"AMQP"
_HEAD: Final = Struct(">IBBH")  # size, data offset, type, channel
# A frame's channel, and the transfer in it up to its handle: what tells shapes of transfers apart.
_KEY_START: Final = 6
_KEY_END: Final = 16
_HANDLE: Final = 14
_MOST_SHAPES: Final = 256
_PLAIN_HEAD: Final = b"\x02\x00"  # data offset and type: an AMQP frame without extended header
EMPTY_FRAME: Final = b"\x00\x00\x00\x08\x02\x00\x00\x00"

# The head of a transfer in one frame, all its integers at full width, so that only numbers change from one to the
# next: frame size, `short_transfer_middle`, delivery id, constructor and length of the tag, the tag, and the end.
SHORT_TRANSFER: Final = Struct(">I16sI2sI8s")
SHORT_TAG: Final = b"\xa0\x04"
SHORT_TRANSFER_SETTLED: Final = b"\x43\x41\x42\x40\x40\x42\x42\x42"
SHORT_TRANSFER_UNSETTLED: Final = b"\x43\x42\x42\x40\x40\x42\x42\x42"
_SHORT_MIDDLE: Final = Struct(">HH6sBIB")


def short_transfer_middle(channel: int, handle: int) -> bytes:
    """From the data offset of the frame to the constructor of the delivery id."""
    return _SHORT_MIDDLE.pack(0x0200, channel, b"\x00\x53\x14\xc0\x19\x0b", 0x70, handle, 0x70)


_ACCEPTED: Final = Struct(">IHH6sBBIBI8s")
_ACCEPTED_HEAD: Final = b"\x00\x53\x15\xc0\x14\x06"
_ACCEPTED_END: Final = b"\x41\x00\x53\x24\xc0\x01\x00\x42"  # settled, the state, not batchable


def encode_accepted(channel: int, first: int, last: int, *, role: bool) -> bytes:
    """The frame that settles these deliveries as accepted: most dispositions are that, so it has a form of its own."""
    code = 0x41 if role else 0x42
    return _ACCEPTED.pack(_ACCEPTED.size, 0x0200, channel, _ACCEPTED_HEAD, code, 0x70, first, 0x70, last, _ACCEPTED_END)


@dataclass
class ProtocolHeader:
    """The first eight bytes of a layer (section 2.2)."""

    protocol: int
    major: int = 1
    minor: int = 0
    revision: int = 0

    def encode(self) -> bytes:
        return _MAGIC + bytes([self.protocol, self.major, self.minor, self.revision])

    @property
    def supported(self) -> bool:
        """Is it a version 1.0.0 of the protocol with or without SASL? TLS is not negotiated inside of AMQP."""
        version = (self.major, self.minor, self.revision)
        return version == (1, 0, 0) and self.protocol in (AMQP_PROTOCOL, SASL_PROTOCOL)


@dataclass
class Frame:
    """A frame. `body` is None in an empty one, which keeps a connection alive. `payload` follows a transfer."""

    channel: int
    body: Composite | None
    payload: bytes = b""

    def encode(self) -> bytes:
        return encode_frame(self.channel, self.body, self.payload)


@dataclass
class FrameFault:
    """The end of what can be read: an error condition of the standard, and a reason for logs without secrets."""

    condition: str
    reason: str


Received = ProtocolHeader | Frame | FrameFault


class TransferShape:
    """What the frames of one link's transfers have in common: all but size, delivery id, tag and payload."""

    __slots__ = (
        "channel",
        "handle",
        "message_format",
        "middle",
        "more",
        "prefix",
        "settled",
        "size",
        "tail",
        "unpack_from",
        "usual",
    )

    def __init__(self, data: bytes, position: int, plain: PlainTransfer) -> None:
        """Of the frame at `position`."""
        self.handle, _, start, end, self.message_format, self.settled, self.more, following = plain
        self.channel = data[position + 6] << 8 | data[position + 7]
        number = position + _HANDLE + (1 if data[position + _HANDLE] == 0x43 else 2)
        width = {0x52: "B", 0x70: "I"}.get(data[number], "")
        self.prefix = data[position + 4 : number + 1]
        self.middle = data[start - 2 : start]
        self.tail = data[end:following]
        self.size = following - position
        self.usual = bool(width)  # a delivery id of 0 may stand there without a byte for it
        self.unpack_from = Struct(f">I{len(self.prefix)}s{width}2s{end - start}s{len(self.tail)}s").unpack_from


BriefTransfer = tuple[TransferShape, int, bytes, bytes]
"""A plain transfer in a frame: its shape, delivery id, tag, payload. Most frames are one, and records cost more."""


def encode_frame(channel: int, body: Composite | None, payload: bytes = b"") -> bytes:
    """The bytes of one frame. Raises ValueError for what the protocol cannot carry."""
    if not 0 <= channel <= 0xFFFF:
        raise ValueError(f"there is no channel {channel}")
    if payload and not isinstance(body, Transfer):
        raise ValueError("only a transfer has a payload (section 2.3.1)")
    content = b"" if body is None else encode_composite(body)
    kind = SASL_FRAME if isinstance(body, SaslBody) else AMQP_FRAME
    return _HEAD.pack(HEADER_SIZE + len(content) + len(payload), 2, kind, channel) + content + payload


class FrameReader:
    """Bytes to protocol headers and frames. `max_frame_size` is what this side has announced, or will."""

    __slots__ = ("_max_frame_size", "_needed", "_over", "_partial", "_shapes")

    def __init__(self, max_frame_size: int = 65_536) -> None:
        if not MIN_MAX_FRAME_SIZE <= max_frame_size < int.from_bytes(_MAGIC, "big"):
            raise ValueError("a max-frame-size that no peer expects (section 2.8.2)")
        self._max_frame_size = max_frame_size
        self._partial = bytearray()
        self._needed = 0  # how long `_partial` has to be before another look at it is worth while
        self._over = False
        self._shapes: dict[bytes, TransferShape] = {}

    @property
    def buffered(self) -> int:
        """Bytes kept of an incomplete frame."""
        return len(self._partial)

    def receive(self, data: bytes) -> list[Received]:
        """What has arrived in full. After a fault: nothing."""
        items = self.receive_briefly(data)
        return [expand(item) if isinstance(item, tuple) else item for item in items]

    def receive_briefly(self, data: bytes) -> list[Received | BriefTransfer]:
        """The same, with most transfers in their brief form."""
        if self._over:
            return []
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            data = bytes(self._partial)
            self._partial.clear()
        found: list[Received | BriefTransfer] = []
        position = 0
        try:
            while (size := self._size(data, position)) > 0:
                end = position + size
                found.append(self._plain(data, position, end) or _decode(data, position, end))
                position = end
                if isinstance(found[-1], tuple):
                    position = self._follow(data, position, found)
        except _Refused as refusal:
            found.append(FrameFault(refusal.condition, refusal.reason))
        except DecodeError as fault:
            found.append(FrameFault(DECODE_ERROR, str(fault)))
        else:
            self._partial += data[position:]
            return found
        self._over = True
        return found

    def _plain(self, data: bytes, position: int, end: int) -> BriefTransfer | None:
        """The frame between these positions, if it is a plain transfer; its shape is known from now on."""
        if data[position + 4 : position + 6] != _PLAIN_HEAD:
            return None
        plain = read_plain_transfer(data, position + HEADER_SIZE, end)
        if plain is None:
            return None
        shape = TransferShape(data, position, plain)
        if shape.usual:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            self._shapes[data[position + _KEY_START : position + _KEY_END]] = shape
        return shape, plain[1], data[plain[2] : plain[3]], data[plain[7] : end]

    def _follow(self, data: bytes, position: int, found: list[Received | BriefTransfer]) -> int:
        """Reads on from `position` while transfers of known shapes come; where they end."""
        shapes, most, present = self._shapes, self._max_frame_size, len(data)
        while True:
            shape = shapes.get(data[position + _KEY_START : position + _KEY_END])
            if shape is None or position + shape.size > present:
                return position
            size, prefix, number, middle, tag, tail = shape.unpack_from(data, position)
            end = position + size
            if (
                end > present
                or not shape.size <= size <= most
                or prefix != shape.prefix
                or middle != shape.middle
                or tail != shape.tail
            ):
                return position
            found.append((shape, number, tag, data[position + shape.size : end]))
            position = end

    def _size(self, data: bytes, position: int) -> int:
        """How long the frame or header at `position` is, or 0 when bytes of it are missing."""
        present = len(data) - position
        if present < 4:
            self._needed = 4
            return 0
        size = int.from_bytes(data[position : position + 4], "big")
        if data.startswith(_MAGIC, position):
            size = HEADER_SIZE
        elif size < HEADER_SIZE:
            raise _Refused(FRAMING_ERROR, f"a frame of {size} bytes (section 2.3.1)")
        elif size > self._max_frame_size:
            raise _Refused(FRAMING_ERROR, f"a frame of {size} bytes, where {self._max_frame_size} is the most")
        self._needed = size
        return size if present >= size else 0


def expand(brief: BriefTransfer) -> Frame:
    """The frame that a brief transfer stands for."""
    shape, delivery_id, tag, payload = brief
    body = Transfer(shape.handle, delivery_id, tag, shape.message_format, shape.settled, shape.more)
    return Frame(shape.channel, body, payload)


class _Refused(Exception):  # noqa: N818 - carries a fault out of the reader; nobody else sees it
    def __init__(self, condition: str, reason: str) -> None:
        super().__init__(reason)
        self.condition = condition
        self.reason = reason


def _decode(data: bytes, position: int, end: int) -> Received:
    """The header or frame between these positions."""
    if data.startswith(_MAGIC, position):
        protocol, major, minor, revision = data[position + 4 : position + 8]
        return ProtocolHeader(protocol, major, minor, revision)
    _, offset, kind, channel = _HEAD.unpack_from(data, position)
    body = position + 4 * offset
    if offset < 2 or body > end:
        raise _Refused(FRAMING_ERROR, f"a data offset of {offset} (section 2.3.1)")
    if kind not in (AMQP_FRAME, SASL_FRAME):
        raise _Refused(FRAMING_ERROR, f"a frame of type {kind} (section 2.3.1)")
    if body == end:
        if kind == SASL_FRAME:
            raise _Refused(FRAMING_ERROR, "an empty SASL frame (section 5.3.1)")
        return Frame(channel, None)
    content = data[body:end]
    composite, following = decode_composite(content)
    if not isinstance(composite, SaslBody if kind == SASL_FRAME else Performative):
        raise _Refused(FRAMING_ERROR, f"{type(composite).__name__} in a frame of type {kind}")
    if following < len(content) and not isinstance(composite, Transfer):
        raise _Refused(FRAMING_ERROR, f"{len(content) - following} bytes follow {type(composite).__name__}")
    if kind == SASL_FRAME:
        channel = 0  # ignored (section 5.3.1)
    return Frame(channel, composite, content[following:])
