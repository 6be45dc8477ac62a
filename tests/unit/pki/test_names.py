import ipaddress

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from muster.pki.names import (
    NameTextError,
    common_name_of,
    common_name_only,
    complete_subject,
    dns_name,
    extended_subject,
    general_name_text,
    name_limits,
    read_alternative_name,
    read_constraint,
    read_subject,
)


def parts(name):
    return [[(attribute.oid._name, attribute.value) for attribute in part] for part in name.rdns]


CN, ORGANIZATION = "commonName", "organizationName"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CN=dev-01", [[(CN, "dev-01")]]),
        ("CN=dev-01,O=Contoso", [[(ORGANIZATION, "Contoso")], [(CN, "dev-01")]]),
        (
            'cn = dev-01 , O="Contoso, ""Ltd"".", C=NL',
            [[("countryName", "NL")], [(ORGANIZATION, 'Contoso, "Ltd".')], [(CN, "dev-01")]],
        ),
        ("CN=a+OU=b;DC=example", [[("domainComponent", "example")], [(CN, "a"), ("organizationalUnitName", "b")]]),
        (r"CN=a\, b\ ,O=\C3\A9\20x", [[(ORGANIZATION, "é x")], [(CN, "a, b ")]]),
        ("/C=NL/O=a b/CN=x/y", [[("countryName", "NL")], [(ORGANIZATION, "a b")], [(CN, "x/y")]]),
        ("1.2.3.4=x", [[("Unknown OID", "x")]]),
        ("ST=a,S=b", [[("stateOrProvinceName", "b")], [("stateOrProvinceName", "a")]]),
        ("E=a@b.c", [[("emailAddress", "a@b.c")]]),
    ],
)
def test_subjects(text, expected):
    assert parts(read_subject(text)) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no part of a subject"),
        ("/", "is no part of a subject"),
        ("/CN", "is no part of a subject"),
        ("dev-01", "is no part of a subject"),
        ("CN=a,", "is no part of a subject"),
        ('CN="a', "is no part of a subject"),
        ("XX=a", "take one of CN, OU"),
        ("9.9.9=a", "no object identifier"),
        ("CN=", "1 to 64 characters, not 0"),
        ("CN=" + 65 * "x", "1 to 64 characters, not 65"),
        ("O=", "is empty"),
        ("C=NLD", "NLD"),
        ("CN=a\\\nb", "do not print"),
        (r"CN=\C3", "not UTF-8"),
        ("O=" + 5000 * " " + "x", "at most 4096 characters"),
    ],
)
def test_what_is_no_subject(text, reason):
    with pytest.raises(NameTextError, match=reason):
        read_subject(text)


def test_a_subject_is_extended_by_a_common_name():
    assert parts(extended_subject("dev,01", "O=Contoso,C=NL")) == [
        [("countryName", "NL")],
        [(ORGANIZATION, "Contoso")],
        [(CN, "dev,01")],
    ]
    assert extended_subject("dev-01", "") == common_name_only("dev-01")


def test_a_subject_without_a_common_name_is_completed():
    assert complete_subject("dev-01", "O=Contoso") == extended_subject("dev-01", "O=Contoso")
    assert complete_subject("dev-01", "CN=other,O=Contoso") == read_subject("CN=other,O=Contoso")


def test_the_common_name_is_the_most_specific_one():
    assert common_name_of(read_subject("CN=dev-01,CN=line")) == "dev-01"
    assert common_name_of(read_subject("O=Contoso")) is None
    odd = x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\0x", x509.name._ASN1Type.BitString)
    assert common_name_of(x509.Name([odd])) is None


ALTERNATIVES = [
    ("DNS:dev-01.example", x509.DNSName("dev-01.example")),
    ("dns:*.example", x509.DNSName("*.example")),
    ("IP:::1", x509.IPAddress(ipaddress.ip_address("::1"))),
    ("URI:urn:device:1", x509.UniformResourceIdentifier("urn:device:1")),
    ("email:a@b.c", x509.RFC822Name("a@b.c")),
    ("localhost", x509.DNSName("localhost")),
    ("10.0.0.1", x509.IPAddress(ipaddress.ip_address("10.0.0.1"))),
    ("fe80::1", x509.IPAddress(ipaddress.ip_address("fe80::1"))),
]


@pytest.mark.parametrize(("text", "expected"), ALTERNATIVES)
def test_alternative_names(text, expected):
    assert read_alternative_name(text) == expected
    assert read_alternative_name(general_name_text(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "DNS:", "DNS:é", "DNS:a..b", "-x", "a b", "IP:x", "IP:10.0.0.0/8", "email:a b", "URI:", "email:()"]
)
def test_what_is_no_alternative_name(text):
    with pytest.raises(NameTextError):
        read_alternative_name(text)


@pytest.mark.parametrize(
    "text", ["DNS:plant.example", "IP:10.0.0.0/8", "email:plant.example", "URI:.plant.example", "DN:O=Contoso"]
)
def test_limits(text):
    assert general_name_text(read_constraint(text)) == text


def test_a_limit_of_hosts_has_no_leading_period():
    assert read_constraint("DNS:.plant.example") == x509.DNSName("plant.example")


@pytest.mark.parametrize("text", ["", "plant.example", "DNS:", "IP:10.0.0.1/8", "IP:", "DN:", "DN:x", "other:x"])
def test_what_is_no_limit(text):
    with pytest.raises(NameTextError):
        read_constraint(text)


def test_limits_as_an_extension():
    permitted = (read_constraint("DNS:plant.example"),)
    assert name_limits((), ()) is None
    assert name_limits(permitted, ()) == x509.NameConstraints(permitted, None)
    assert name_limits((), permitted) == x509.NameConstraints(None, permitted)


def test_other_kinds_are_shown_as_far_as_that_goes():
    assert general_name_text(x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))) == "RID:1.2.3"
    assert general_name_text(x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")) == "other name"


def test_a_dns_name_is_short():
    assert dns_name("a" * 253).value
    with pytest.raises(NameTextError):
        dns_name("a" * 254)
