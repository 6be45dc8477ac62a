"""Which partition of a hub's event log a device's messages go to.

Some clients compute this themselves, so it must be Azure's own function: interop-facts.md 7.
"""

_MASK = 0xFFFFFFFF
_SHORT_RANGE = 32767


def partition_of(device_id: str, partition_count: int) -> int:
    """The partition, from 0, of ``device_id`` among ``partition_count`` (2 to 32)."""
    c, b = _hashlittle2(device_id.upper().encode("ascii", "replace"))
    value = (c ^ b) & 0xFFFF
    signed = value - 0x10000 if value & 0x8000 else value
    # C's remainder keeps the sign of the dividend, and its absolute value is taken.
    position = abs(signed) % _SHORT_RANGE
    size, remainder = divmod(_SHORT_RANGE, partition_count)
    wide = remainder * (size + 1)
    if position < wide:
        return position // (size + 1)
    return remainder + (position - wide) // size


def _hashlittle2(data: bytes) -> tuple[int, int]:
    """Bob Jenkins' lookup3 over bytes, both seeds 0: the two 32-bit results (c, b)."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c, b
    padded = data + bytes(-len(data) % 12)
    words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)]
    blocks = [words[i : i + 3] for i in range(0, len(words), 3)]
    for x, y, z in blocks[:-1]:
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
    x, y, z = blocks[-1]
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _MASK) ^ _rotate(c, bits)
        c = (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> tuple[int, int]:
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotate(b, bits)) & _MASK
        a, b, c = b, c, a
    # Seven steps leave the names moved by one place: lookup3's c is called b now, and its b is called a.
    return b, a
