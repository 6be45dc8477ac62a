import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from muster.pki.certificate_profiles import PROFILES
from muster.pki.certificate_request import (
    RequestFormatError,
    parse_certificate_request,
    read_certificate_request,
    request_problems,
)
from muster.pki.names import read_subject
from tests.support.fix_ca import key, openssl, request
from tests.support.fix_pki import rsa_key

DEVICE = PROFILES["device"]


def facts(*arguments, **options):
    return parse_certificate_request(request(*arguments, **options).public_bytes(Encoding.DER))


def ids(found, profile="device", name="dev-01"):
    return [problem.id for problem in request_problems(found, PROFILES[profile], name)]


def usage(*names):
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    every = (*every, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: name in names for name in every})


def test_the_facts():
    found = facts(
        "dev-01",
        subject=read_subject("CN=dev-01, O=Contoso"),
        extensions=[
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, x509.ObjectIdentifier("1.2.3.4")]),
            x509.SubjectAlternativeName([x509.DNSName("dev-01")]),
            x509.BasicConstraints(ca=True, path_length=0),
            usage("crl_sign"),
        ],
    )
    assert (found.subject, found.common_name) == ("CN=dev-01, O=Contoso", "dev-01")
    assert found.public_key == key("dev-01").public_key()
    assert (found.key_problem, found.is_signed) == (None, True)
    assert (found.wants_ca, found.wants_key_cert_sign) == (True, True)
    assert found.extended_key_usage == ("clientAuth", "1.2.3.4")
    assert found.alternative_names == (x509.DNSName("dev-01"),)


def test_what_it_does_not_say():
    found = facts("dev-01")
    assert (found.wants_ca, found.wants_key_cert_sign, found.extended_key_usage) == (False, False, None)
    assert found.alternative_names == ()
    assert ids(found) == []


def test_every_form_is_read():
    made = request()
    content, pem = made.public_bytes(Encoding.DER), made.public_bytes(Encoding.PEM).decode()
    bare = base64.b64encode(content).decode()
    forms = (
        content,
        pem,
        pem.encode(),
        "text before\n" + pem,
        pem.replace("BEGIN ", "BEGIN NEW ").replace("END ", "END NEW "),
        bare,
    )
    assert {read_certificate_request(form).der for form in (*forms, f" {bare[:40]}\n{bare[40:]}\n")} == {content}


def test_what_openssl_makes_is_read(tmp_path):
    done = openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "k", "-subj", "/CN=dev-01")
    assert ids(read_certificate_request(done.stdout)) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not a certificate signing request"),
        (b"\x30\x00", "not a certificate signing request"),
        (b"\xff\xfe\xfd", "neither PEM, nor base64, nor DER"),
        ("not base64!", "neither PEM nor base64"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "another PEM block"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "not a certificate signing"),
    ],
)
def test_what_is_no_request(content, reason):
    with pytest.raises(RequestFormatError, match=reason):
        read_certificate_request(content)


def test_extensions_that_cannot_be_read_are_no_request():
    odd = x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\x04\x00")
    with pytest.raises(RequestFormatError):
        facts("dev-01", extensions=[odd])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"extensions": [x509.BasicConstraints(ca=True, path_length=None)]}, ["csr.ca"]),
        ({"extensions": [usage("key_cert_sign")]}, ["csr.ca"]),
        ({"extensions": [usage("digital_signature")]}, []),
        ({"extensions": [x509.BasicConstraints(ca=False, path_length=None)]}, []),
        ({"extensions": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])]}, ["csr.extended-key-usage"]),
        ({"extensions": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]}, []),
        ({"extensions": [x509.SubjectAlternativeName([x509.DNSName("x")])]}, ["csr.alternative-name"]),
        ({"extensions": [x509.SubjectAlternativeName([x509.DNSName("dev-01")])]}, []),
        ({"signer": rsa_key(1024)}, ["csr.key"]),
        ({"signer": rsa_key(2048)}, []),
        ({"signer": ec.generate_private_key(ec.SECP256K1())}, ["csr.key"]),
        ({"signer": key("dev-01", "ed25519")}, []),
        ({"subject": read_subject("CN=dev-02")}, ["csr.common-name"]),
        ({"subject": read_subject("O=Contoso")}, ["csr.common-name"]),
        ({"subject": read_subject("CN=dev-01,O=Contoso")}, []),
    ],
)
def test_why_a_request_is_not_signed(options, expected):
    assert ids(facts("dev-01", **options)) == expected


def test_a_key_of_another_kind_is_no_public_key():
    found = facts(signer=ed448.Ed448PrivateKey.generate())
    assert found.public_key is None
    assert ids(found) == ["csr.key"]


def test_a_ca_may_ask_to_be_one():
    wishes = [x509.BasicConstraints(ca=True, path_length=0), usage("key_cert_sign", "crl_sign")]
    assert ids(facts("Line A", extensions=wishes), "intermediate-ca", "Line A") == []


def test_the_profile_has_to_take_the_name():
    assert ids(facts("dev 01"), name="dev 01") == ["csr.common-name"]


def damaged(content, old, new):
    assert content.count(old) == 1
    return content.replace(old, new)


def test_a_request_that_was_changed_is_not_signed():
    content = request("dev-01").public_bytes(Encoding.DER)
    found = parse_certificate_request(damaged(content, b"dev-01", b"dev-02"))
    assert not found.is_signed
    assert ids(found, name="dev-02") == ["csr.signature"]


def test_a_signature_algorithm_that_is_unknown_is_no_signature():
    content = request("dev-01").public_bytes(Encoding.DER)
    found = parse_certificate_request(
        damaged(content, bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040377"))
    )
    assert not found.is_signed


def test_a_key_that_cannot_be_read():
    content = request("dev-01").public_bytes(Encoding.DER)
    found = parse_certificate_request(
        damaged(content, bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0277"))
    )
    assert (found.public_key, found.is_signed) == (None, False)
    assert ids(found) == ["csr.key", "csr.signature"]


def test_every_problem_says_what_and_what_to_do():
    found = facts(None, signer=rsa_key(1024), extensions=[x509.BasicConstraints(ca=True, path_length=None)])
    problems = request_problems(found, DEVICE, "dev-01")
    assert [problem.id for problem in problems] == ["csr.common-name", "csr.key", "csr.ca"]
    assert all(problem.detail and problem.fix for problem in problems)
