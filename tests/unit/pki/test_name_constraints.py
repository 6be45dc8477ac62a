from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from muster.pki.name_constraints import excluded_name, read_extension
from tests.support.fix_pki import changed, ec_key, element, issue, make_certificate

dns, mail, uri = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier


def directory(*attributes):
    return x509.DirectoryName(x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes]))


def address(text):
    return x509.IPAddress(ip_address(text))


def network(text):
    return x509.IPAddress(ip_network(text))


ORGANIZATION = (NameOID.ORGANIZATION_NAME, "Contoso")
DEVICE = directory(ORGANIZATION, (NameOID.COMMON_NAME, "dev-01"))


def certificate(*names, subject=DEVICE.value):
    extensions = [(x509.SubjectAlternativeName(names), False)] if names else []
    made = make_certificate(None, key=ec_key(), subject=subject, extensions=extensions)
    return x509.load_der_x509_certificate(made)


def allowed(base, *names):
    """What permitting the base allows of the names; excluding it has to say the opposite."""
    permitting, excluding = x509.NameConstraints([base], None), x509.NameConstraints(None, [base])
    answers = []
    for name in names:
        answer = excluded_name(permitting, certificate(name)) is None
        assert (excluded_name(excluding, certificate(name)) is None) is not answer
        answers.append(answer)
    return answers


@pytest.mark.parametrize(
    ("base", "inside", "outside"),
    [
        (dns("plant.example"), ["plant.example", "a.plant.example", "B.PLANT.example"], ["xplant.example", "example"]),
        (dns(".plant.example"), ["a.plant.example"], ["plant.example", "xplant.example"]),
        (dns(""), ["anything"], []),
    ],
)
def test_dns_names(base, inside, outside):
    assert allowed(base, *map(dns, inside)) == [True] * len(inside)
    assert allowed(base, *map(dns, outside)) == [False] * len(outside)


@pytest.mark.parametrize(
    ("base", "inside", "outside"),
    [
        ("ops@plant.example", ["ops@plant.example", "ops@PLANT.example"], ["OPS@plant.example", "a@plant.example"]),
        ("plant.example", ["a@plant.example"], ["a@b.plant.example", "a@example"]),
        (".plant.example", ["a@b.plant.example"], ["a@plant.example", "a@example"]),
    ],
)
def test_mailboxes(base, inside, outside):
    assert allowed(mail(base), *map(mail, inside)) == [True] * len(inside)
    assert allowed(mail(base), *map(mail, outside)) == [False] * len(outside)


@pytest.mark.parametrize(
    ("base", "inside", "outside"),
    [
        ("plant.example", ["https://plant.example/a", "amqps://PLANT.example:5671"], ["https://b.plant.example"]),
        (".plant.example", ["https://b.plant.example"], ["https://plant.example"]),
    ],
)
def test_uris(base, inside, outside):
    assert allowed(uri(base), *map(uri, inside)) == [True] * len(inside)
    assert allowed(uri(base), *map(uri, outside)) == [False] * len(outside)


@pytest.mark.parametrize("name", ["urn:uuid:f81d4fae", "https://[broken"])
def test_a_uri_without_a_host_is_allowed_by_no_constraint(name):
    for constraints in (x509.NameConstraints([uri("a.example")], None), x509.NameConstraints(None, [uri("a.example")])):
        assert excluded_name(constraints, certificate(uri(name))) == name


def test_addresses():
    assert allowed(network("10.1.0.0/16"), address("10.1.2.3"), address("10.2.0.1"), address("::1")) == [
        True,
        False,
        False,
    ]
    assert allowed(network("fd00::/8"), address("fd00::1")) == [True]


def test_the_subject_is_a_directory_name():
    within, without = directory(ORGANIZATION), directory((NameOID.ORGANIZATION_NAME, "Fabrikam"))
    assert excluded_name(x509.NameConstraints([within], None), certificate()) is None
    assert excluded_name(x509.NameConstraints([without], None), certificate()) == "CN=dev-01,O=Contoso"
    assert excluded_name(x509.NameConstraints(None, [within]), certificate()) == "CN=dev-01,O=Contoso"
    assert excluded_name(x509.NameConstraints([without], None), certificate(subject=x509.Name([]))) is None


def test_a_mailbox_in_the_subject_counts():
    subject = directory((NameOID.EMAIL_ADDRESS, "a@other.example")).value
    constraints = x509.NameConstraints([mail("plant.example")], None)
    assert excluded_name(constraints, certificate(subject=subject)) == "a@other.example"


def test_names_of_another_kind_are_free():
    constraints = x509.NameConstraints([dns("plant.example")], [mail("plant.example")])
    assert excluded_name(constraints, certificate(address("10.0.0.1"), uri("https://elsewhere.example"))) is None


def test_one_of_several_bases_is_enough_to_permit_and_to_exclude():
    permitting = x509.NameConstraints([dns("a.example"), dns("b.example")], None)
    assert excluded_name(permitting, certificate(dns("x.a.example"), dns("x.b.example"))) is None
    assert excluded_name(permitting, certificate(dns("a.example"), dns("c.example"))) == "c.example"
    excluding = x509.NameConstraints([dns("example")], [dns("a.example"), dns("b.example")])
    assert excluded_name(excluding, certificate(dns("b.example"))) == "b.example"


def test_a_kind_that_is_not_known_is_allowed_nowhere():
    name = x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))
    for constraints in (x509.NameConstraints([name], None), x509.NameConstraints(None, [name])):
        assert excluded_name(constraints, certificate(name)) is not None
        assert excluded_name(constraints, certificate(dns("a.example"))) is None


def twice(extensions):
    """The DER of the extensions with each of them standing there twice; shorter than 64 bytes before."""
    listed = extensions[4:]
    return element(0xA3, element(0x30, listed + listed))


def test_extensions_that_cannot_be_read_are_an_error():
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x05")
    made = x509.load_der_x509_certificate(make_certificate("dev-01", key=ec_key(), extensions=[(broken, False)]))
    with pytest.raises(ValueError, match="parsing"):
        excluded_name(x509.NameConstraints([dns("a.example")], None), made)
    doubled = changed(issue("dev-01"), lambda fields: [*fields[:-1], twice(fields[-1])])
    with pytest.raises(ValueError, match="Duplicate"):
        read_extension(x509.load_der_x509_certificate(doubled.certificate), x509.SubjectAlternativeName)
    assert read_extension(certificate(), x509.NameConstraints) is None
