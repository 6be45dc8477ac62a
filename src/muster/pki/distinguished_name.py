"""Distinguished names as Windows and .NET write them, which is how both services show subject and issuer
(dps.md 4.7).

Most specific part first, ``CN=pump-17, O="Contoso, Ltd.", C=NL``. Only the way from DER to text; nothing is
parsed back.
"""

from muster.pki import der

COMMON_NAME = "2.5.4.3"

_LABELS = {
    COMMON_NAME: "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "SERIALNUMBER",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "S",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "T",
    "2.5.4.42": "G",
    "2.5.4.43": "I",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "E",
}
_QUOTED = frozenset(',+="\n<>#;')


def read_name(data: bytes, element: der.Element) -> tuple[str, str | None]:
    """The text of a Name (RFC 5280 4.1.2.4) and its common name, the most specific one if there are several.

    Raises DerError.
    """
    parts: list[str] = []
    common_name = None
    for _, start, end in der.read_sequence(data, element):
        attributes = [_attribute(data, item) for item in der.read_elements(data, start, end)]
        parts.append(" + ".join(f"{_LABELS.get(kind, f'OID.{kind}')}={_quoted(value)}" for kind, value in attributes))
        common_name = next((value for kind, value in attributes if kind == COMMON_NAME), common_name)
    return ", ".join(reversed(parts)), common_name


def _attribute(data: bytes, element: der.Element) -> tuple[str, str]:
    """Type and value of one AttributeTypeAndValue; a value that is no text is shown as RFC 4514 does, ``#``
    and hex.
    """
    items = der.read_sequence(data, element)
    if len(items) != 2 or items[0][0] != der.OBJECT_IDENTIFIER:  # noqa: PLR2004 - a type and a value
        raise der.DerError(f"an attribute of a name was expected at byte {element[1]}")
    (_, start, end), (tag, value_start, value_end) = items
    content = data[value_start:value_end]
    value = der.text(tag, content)
    return der.object_identifier(data[start:end]), f"#{content.hex().upper()}" if value is None else value


def _quoted(value: str) -> str:
    """In double quotes when .NET would: empty, a special character inside, or white space at an end."""
    if value and _QUOTED.isdisjoint(value) and value == value.strip():
        return value
    return '"' + value.replace('"', '""') + '"'
