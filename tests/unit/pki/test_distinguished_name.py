import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from muster.pki import der
from muster.pki.distinguished_name import read_name


def read(*relative_names):
    data = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(kind, value) for kind, value in attributes])
            for attributes in relative_names
        ]
    ).public_bytes()
    return read_name(data, der.read_element(data, 0, len(data)))


def test_the_most_specific_part_stands_first():
    name = read(
        [(NameOID.COUNTRY_NAME, "NL")], [(NameOID.ORGANIZATION_NAME, "Contoso")], [(NameOID.COMMON_NAME, "pump-17")]
    )
    assert name == ("CN=pump-17, O=Contoso, C=NL", "pump-17")


def test_parts_with_several_values_are_joined():
    text, common_name = read([(NameOID.COMMON_NAME, "pump-17"), (NameOID.SERIAL_NUMBER, "8")])
    assert sorted(text.split(" + ")) == ["CN=pump-17", "SERIALNUMBER=8"]
    assert common_name == "pump-17"


def test_of_several_common_names_the_most_specific_counts():
    assert read([(NameOID.COMMON_NAME, "line")], [(NameOID.COMMON_NAME, "pump")])[1] == "pump"


def test_an_empty_name():
    assert read() == ("", None)


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        (NameOID.STATE_OR_PROVINCE_NAME, "S"),
        (NameOID.EMAIL_ADDRESS, "E"),
        (NameOID.DOMAIN_COMPONENT, "DC"),
        (ObjectIdentifier("1.2.3.4"), "OID.1.2.3.4"),
    ],
)
def test_labels_are_those_of_windows(kind, label):
    assert read([(kind, "x")]) == (f"{label}=x", None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Contoso, Ltd.", '"Contoso, Ltd."'),
        ('say "hi"', '"say ""hi"""'),
        (" x", '" x"'),
        ("a=b", '"a=b"'),
        ("<script>", '"<script>"'),
        ("plain", "plain"),
    ],
)
def test_values_are_quoted_as_dotnet_does(value, shown):
    assert read([(NameOID.COMMON_NAME, value)]) == (f"CN={shown}", value)


def test_an_empty_value_is_quoted():
    data = bytes.fromhex("300b3109300706035504030c00")
    assert read_name(data, der.read_element(data, 0, len(data))) == ('CN=""', "")


def test_a_value_that_is_no_text_is_shown_in_hex():
    data = bytes.fromhex("300d310b3009060355040304020a0b")
    assert read_name(data, der.read_element(data, 0, len(data))) == ('CN="#0A0B"', "#0A0B")


@pytest.mark.parametrize("data", ["0400", "3007310530030c0161", "300731053003060155"])
def test_what_is_no_name_is_refused(data):
    content = bytes.fromhex(data)
    with pytest.raises(der.DerError):
        read_name(content, der.read_element(content, 0, len(content)))
