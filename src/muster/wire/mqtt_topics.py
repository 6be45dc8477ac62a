"""The text of MQTT 3.1.1: rules for strings, topic names and topic filters, and which name a filter matches.

Pure functions on bytes (specification sections 1.5.3 and 4.7). Nothing here knows a topic of Azure's.

Names and filters stay bytes from the wire to the last user: comparing UTF-8 byte by byte is comparing it
character by character without normalisation, which is what [MQTT-4.7.3-4] asks for, and most topics are never
read as text.

In one point they are less strict than the specification: `+` and `#` are wildcards where they are a whole level,
and text like any other elsewhere. Devices may have them in their ids, which stand in topics as they are, and
some clients write the values of properties as they are (hub-device.md 2.1, 4.1).
"""

from typing import Final

LONGEST_TEXT: Final = 65_535  # bytes: a two-byte length stands before every string (section 1.5.3)

# As numbers, because a number is found in bytes ten times faster than bytes are.
NUL: Final = 0x00
PLUS: Final = 0x2B
HASH: Final = 0x23


def text_fault(text: bytes) -> str | None:
    """Why these bytes are no MQTT string (section 1.5.3), or None."""
    if len(text) > LONGEST_TEXT:
        return f"a string of {len(text)} bytes is longer than {LONGEST_TEXT}"
    if NUL in text:
        return "a string holds U+0000 [MQTT-1.5.3-2]"
    if text.isascii():
        return None
    try:
        text.decode()  # refuses surrogates and overlong forms too; U+FEFF stays [MQTT-1.5.3-3]
    except UnicodeDecodeError:
        return "a string is not well-formed UTF-8 [MQTT-1.5.3-1]"
    return None


def topic_name_fault(name: bytes) -> str | None:
    """Why these bytes are no topic name (sections 3.3.2.1 and 4.7), or None."""
    if not name:
        return "a topic name is empty [MQTT-4.7.3-1]"
    if PLUS in name or HASH in name:
        levels = name.split(b"/")
        if b"+" in levels or b"#" in levels:
            return "a level of a topic name is a wildcard [MQTT-3.3.2-2]"
    return text_fault(name)


def topic_filter_fault(topic_filter: bytes) -> str | None:
    """Why these bytes are no topic filter (section 4.7), or None."""
    if not topic_filter:
        return "a topic filter is empty [MQTT-4.7.3-1]"
    if HASH in topic_filter and b"#" in topic_filter.split(b"/")[:-1]:
        return "in a topic filter, # is not the last level [MQTT-4.7.1-2]"
    return text_fault(topic_filter)


def matches(topic_filter: bytes, topic_name: bytes) -> bool:
    """Does a valid filter match a valid topic name (section 4.7)?"""
    if PLUS not in topic_filter and HASH not in topic_filter:
        return topic_filter == topic_name
    # [MQTT-4.7.2-1]: a filter that starts with a wildcard does not match a name that starts with $.
    if topic_name.startswith(b"$") and not topic_filter.startswith(b"$"):
        return False
    filter_levels = topic_filter.split(b"/")
    name_levels = topic_name.split(b"/")
    for index, level in enumerate(filter_levels):
        if level == b"#":
            return True  # "sport/#" matches "sport" as well: # stands for the parent and all below it (4.7.1.2)
        if index == len(name_levels) or level not in (b"+", name_levels[index]):
            return False
    return len(filter_levels) == len(name_levels)
