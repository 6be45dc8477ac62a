import base64
import hashlib
import re
import subprocess
from datetime import UTC, datetime

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
from cryptography.x509.oid import NameOID, ObjectIdentifier

from muster.pki.certificate import (
    CertificateFormatError,
    certificate_info,
    is_self_signed,
    parse_certificate,
    read_certificates,
    sha1_thumbprint,
    sha256_thumbprint,
    utc_text,
)
from tests.support import fix_pki
from tests.support.fix_pki import DAY, NOW, ec_key, make_certificate

KINDS = [
    fix_pki.self_signed,
    fix_pki.ca_leaf,
    fix_pki.expired,
    fix_pki.not_yet_valid,
    fix_pki.wrong_usage,
    fix_pki.version_1,
    fix_pki.rsa_1024_sha1,
    fix_pki.chain_leaf,
]


def facts(kind):
    return parse_certificate(kind().certificate)


def openssl(certificate, *options):
    """What ``openssl x509`` prints, as a mapping of what stands before and behind the first ``=``."""
    command = ["openssl", "x509", "-inform", "DER", "-noout", *options]
    text = subprocess.run(command, input=certificate, capture_output=True, check=True).stdout.decode()
    return dict(line.split("=", 1) for line in text.splitlines())


def openssl_time(text):
    moment = datetime.strptime(text, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_facts_are_those_that_openssl_prints(kind):
    certificate = kind().certificate
    read = parse_certificate(certificate)
    name = ["-nameopt", "sep_comma_plus_space,sname,dn_rev"]
    sha256 = openssl(certificate, "-fingerprint", "-sha256")
    sha1 = openssl(certificate, "-fingerprint", "-sha1", "-subject", "-issuer", "-serial", "-dates", *name)
    assert read.sha1_thumbprint == sha1["sha1 Fingerprint"].replace(":", "")
    assert read.sha256_thumbprint == sha256["sha256 Fingerprint"].replace(":", "")
    assert read.subject == sha1["subject"]
    assert read.issuer == sha1["issuer"]
    assert read.serial_number == sha1["serial"]
    assert read.not_before == openssl_time(sha1["notBefore"])
    assert read.not_after == openssl_time(sha1["notAfter"])


def test_a_device_certificate():
    read = facts(fix_pki.self_signed)
    assert (read.common_name, read.version, read.self_issued) == ("dev-01", 3, True)
    assert (read.key_algorithm, read.key_size, read.curve, read.signature_hash) == ("EC", 256, "P-256", "SHA-256")
    assert (read.is_ca, read.extended_key_usage, read.key_usage) == (False, ("clientAuth",), None)


def test_a_ca_certificate():
    read = facts(fix_pki.ca_leaf)
    assert (read.is_ca, read.extended_key_usage) == (True, None)


def test_version_1_has_no_extensions():
    read = facts(fix_pki.version_1)
    assert (read.version, read.is_ca, read.key_usage, read.extended_key_usage) == (1, None, None, None)


def test_rsa_and_sha1():
    read = facts(fix_pki.rsa_1024_sha1)
    assert (read.key_algorithm, read.key_size, read.curve, read.signature_hash) == ("RSA", 1024, None, "SHA-1")


def test_an_issued_certificate_is_not_self_issued():
    read = facts(fix_pki.chain_leaf)
    assert (read.issuer, read.self_issued) == ("CN=Line A Intermediate", False)


def test_usages_without_a_name_are_shown_as_identifiers():
    usages = (fix_pki.CLIENT_AUTH, ObjectIdentifier("1.2.3.4"))
    assert parse_certificate(make_certificate("x", key=ec_key(), usages=usages)).extended_key_usage == (
        "clientAuth",
        "1.2.3.4",
    )


def test_a_certificate_without_a_subject():
    read = parse_certificate(make_certificate(None, key=ec_key()))
    assert (read.subject, read.common_name) == ("", None)


@pytest.mark.parametrize(
    ("serial", "shown"),
    [(0x3F00AA, "3F00AA"), (0x1, "01"), (0xABC, "0ABC"), (0xFF00, "FF00"), (1 << 158, "40" + "00" * 19)],
)
def test_serial_numbers_are_hex_with_an_even_number_of_digits(serial, shown):
    assert parse_certificate(make_certificate("x", key=ec_key(), serial_number=serial)).serial_number == shown


# --- What strict parsers refuse, TLS accepts, and the field has ---------------------------------------------


def patched(old, new, **changes):
    """A certificate with one place changed; its signature does not fit any more, which no reader of facts minds."""
    certificate = make_certificate("dev-01", key=ec_key(), **changes)
    assert len(old) == len(new)
    assert old in certificate
    return certificate.replace(old, new)


SERIAL = 0x01234567
SERIAL_DER = bytes.fromhex("020401234567")


def with_serial(new):
    return patched(SERIAL_DER, bytes.fromhex(new), serial_number=SERIAL)


def test_a_negative_serial_number():
    assert parse_certificate(with_serial("020481234567")).serial_number == "81234567"


def test_a_serial_number_of_zero():
    assert parse_certificate(with_serial("020400000000")).serial_number == "00"


def test_an_explicit_version_1():
    assert parse_certificate(patched(bytes.fromhex("a003020102"), bytes.fromhex("a003020100"))).version == 1


def test_an_underscore_in_a_printable_string():
    old, new = b"\x0c\x06dev-01", b"\x13\x06dev_01"
    assert parse_certificate(patched(old, new)).common_name == "dev_01"


def test_damaged_text():
    assert parse_certificate(patched(b"\x0c\x06dev-01", b"\x0c\x06dev\xff01")).common_name == "dev�01"


def test_dates_that_do_not_exist():
    certificate = fix_pki.self_signed().certificate
    dates = re.findall(rb"\d{12}Z", certificate)
    read = parse_certificate(certificate.replace(dates[0], b"261323170000Z").replace(dates[1], b"261323170000Z"))
    assert (read.not_before, read.not_after) == (None, None)
    info = certificate_info(read)
    assert (info.not_before_utc, info.not_after_utc) == ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z")


def test_an_unknown_key_type():
    old, new = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d027f")
    read = parse_certificate(patched(old, new))
    assert (read.key_algorithm, read.key_size, read.curve) == ("1.2.840.10045.2.127", None, None)


def test_an_unknown_curve():
    old, new = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    read = parse_certificate(patched(old, new))
    assert (read.key_algorithm, read.key_size, read.curve) == ("EC", None, "1.2.840.10045.3.1.127")


def test_an_unreadable_key():
    old, new = bytes.fromhex("301306072a8648ce3d0201"), bytes.fromhex("041306072a8648ce3d0201")
    assert parse_certificate(patched(old, new)).key_algorithm is None


def test_an_unknown_signature_algorithm():
    old, new = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
    assert parse_certificate(patched(old, new)).signature_hash is None


def test_an_unreadable_signature_algorithm():
    old, new = bytes.fromhex("300a06082a8648ce3d040302"), bytes.fromhex("040a06082a8648ce3d040302")
    assert parse_certificate(patched(old, new)).signature_hash is None


def test_a_signature_algorithm_without_an_identifier():
    certificate = fix_pki.self_signed().certificate
    outer = x509.load_der_x509_certificate(certificate)
    rest = outer.tbs_certificate_bytes + b"\x30\x00" + b"\x03\x01\x00"
    assert parse_certificate(b"\x30\x82" + len(rest).to_bytes(2) + rest).signature_hash is None


def with_extension(identifier, value):
    """A certificate with an extension of this identifier and value, behind the ones it would have anyway."""
    stand_in = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.99"), value)
    certificate = signed_by(ec_key(), lambda builder: builder.add_extension(stand_in, critical=False))
    return certificate.replace(bytes.fromhex("0603551d63"), identifier)


@pytest.mark.parametrize("value", [b"", b"\x30", b"\x04\x05a", b"\x30\x03\x04\x05a"])
@pytest.mark.parametrize(
    ("identifier", "fact"),
    [("0603551d13", "is_ca"), ("0603551d0f", "key_usage"), ("0603551d25", "extended_key_usage")],
)
def test_an_unreadable_extension_is_none(identifier, value, fact):
    read = parse_certificate(with_extension(bytes.fromhex(identifier), value))
    assert getattr(read, fact) is None


@pytest.mark.parametrize(("value", "is_ca"), [("3000", False), ("3003010100", False), ("30030101ff", True)])
def test_basic_constraints(value, is_ca):
    assert parse_certificate(with_extension(bytes.fromhex("0603551d13"), bytes.fromhex(value))).is_ca is is_ca


def test_extensions_that_are_no_sequence_are_none():
    old, new = bytes.fromhex("300c0603551d130101ff"), bytes.fromhex("040c0603551d130101ff")
    read = parse_certificate(patched(old, new))
    assert (read.is_ca, read.extended_key_usage) == (None, None)


def test_of_doubled_extensions_the_first_counts():
    usages = x509.ExtendedKeyUsage([fix_pki.CLIENT_AUTH])
    stand_in = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.99"), bytes.fromhex("300406022a03"))
    certificate = signed_by(
        ec_key(),
        lambda builder: builder.add_extension(usages, critical=False).add_extension(stand_in, critical=False),
    )
    doubled = certificate.replace(bytes.fromhex("0603551d63"), bytes.fromhex("0603551d25"))
    assert parse_certificate(doubled).extended_key_usage == ("clientAuth",)


def test_an_extension_of_one_part_makes_all_unreadable():
    old, new = bytes.fromhex("300f0603551d130101ff040530030101ff"), bytes.fromhex("300f040d551d130101ff040530030101ff")
    read = parse_certificate(patched(old, new, is_ca=True))
    assert (read.is_ca, read.extended_key_usage) == (None, None)


# --- Keys and signatures ------------------------------------------------------------------------------------


def signed_by(key, change=lambda builder: builder, algorithm=None, **options):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dev-01")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
    )
    if algorithm is None and not isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = hashes.SHA256()
    return change(builder).sign(key, algorithm, **options).public_bytes(Encoding.DER)


def test_ed25519():
    read = parse_certificate(signed_by(ed25519.Ed25519PrivateKey.generate()))
    assert (read.key_algorithm, read.key_size, read.curve, read.signature_hash) == ("Ed25519", None, None, "SHA-512")


@pytest.mark.parametrize("digest", [hashes.SHA256, hashes.SHA384, hashes.SHA512])
def test_rsa_pss_names_its_hash(digest):
    scheme = padding.PSS(mgf=padding.MGF1(digest()), salt_length=20)
    key = fix_pki.rsa_key(2048)
    read = parse_certificate(signed_by(key, algorithm=digest(), rsa_padding=scheme))
    assert (read.key_size, read.signature_hash) == (2048, digest.name.upper().replace("SHA", "SHA-"))


def test_rsa_pss_without_parameters_is_sha1():
    certificate = signed_by(ec_key())
    body = x509.load_der_x509_certificate(certificate).tbs_certificate_bytes
    for parameters in ("", "3000", "3005a203020120"):
        algorithm = bytes.fromhex("06092a864886f70d01010a" + parameters)
        rest = body + b"\x30" + bytes([len(algorithm)]) + algorithm + b"\x03\x01\x00"
        assert parse_certificate(b"\x30\x82" + len(rest).to_bytes(2) + rest).signature_hash == "SHA-1"


@pytest.mark.parametrize(("curve", "name", "size"), [(ec.SECP384R1, "P-384", 384), (ec.SECP521R1, "P-521", 521)])
def test_curves(curve, name, size):
    read = parse_certificate(signed_by(ec.generate_private_key(curve())))
    assert (read.key_algorithm, read.curve, read.key_size) == ("EC", name, size)


def test_key_usages():
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=True,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=True,
    )
    certificate = signed_by(ec_key(), lambda builder: builder.add_extension(usage, critical=True))
    assert parse_certificate(certificate).key_usage == (
        "digitalSignature",
        "keyEncipherment",
        "keyAgreement",
        "decipherOnly",
    )


# --- Self-signed --------------------------------------------------------------------------------------------


def test_self_signed():
    assert is_self_signed(facts(fix_pki.self_signed)) is True
    assert is_self_signed(facts(fix_pki.chain_leaf)) is False


def test_self_issued_but_signed_by_another_key():
    other = fix_pki.Identity(make_certificate("dev-01", key=ec_key("x"), is_ca=True), ec_key("x"))
    assert is_self_signed(parse_certificate(make_certificate("dev-01", key=ec_key(), issuer=other))) is False


def test_a_negative_serial_number_does_not_hinder_the_signature_check():
    assert is_self_signed(parse_certificate(with_serial("020481234567"))) is False


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("06072a8648ce3d0201", "06072a8648ce3d027f"),
        ("a003020102", "a003020106"),
        ("a003020102", "a003020100"),
    ],
)
def test_what_the_library_cannot_read_is_not_told(old, new):
    assert is_self_signed(parse_certificate(patched(bytes.fromhex(old), bytes.fromhex(new)))) is None


# --- What is not a certificate ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\x30\x00",
        b"\x30\x06\x30\x00\x30\x00\x03\x00",
        b"\x04\x02ab",
        fix_pki.self_signed().certificate + b"\0",
        fix_pki.self_signed().certificate[:-1],
    ],
    ids=["nothing", "garbage", "an empty sequence", "an empty body", "a string", "a byte too many", "a byte too few"],
)
def test_garbage_is_refused(content):
    with pytest.raises(CertificateFormatError, match=r"^not an X\.509 certificate: "):
        parse_certificate(content)


def test_a_private_key_is_no_certificate():
    key = ec_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(CertificateFormatError):
        parse_certificate(key)


# --- Thumbprints, info, times -------------------------------------------------------------------------------


def test_thumbprints_need_no_certificate():
    assert sha1_thumbprint(b"abc") == hashlib.sha1(b"abc").hexdigest().upper()
    assert sha256_thumbprint(b"abc") == hashlib.sha256(b"abc").hexdigest().upper()


def test_info_has_all_eight_fields_as_the_service_names_them():
    certificate = make_certificate(
        "pump-17", key=ec_key(), serial_number=0x3F00AA, not_before=0, not_after=NOW // DAY * DAY
    )
    info = msgspec.to_builtins(certificate_info(parse_certificate(certificate)))
    assert info == {
        "subjectName": "CN=pump-17",
        "sha1Thumbprint": sha1_thumbprint(certificate),
        "sha256Thumbprint": sha256_thumbprint(certificate),
        "issuerName": "CN=pump-17",
        "notBeforeUtc": "1970-01-01T00:00:00Z",
        "notAfterUtc": utc_text(NOW // DAY * DAY),
        "serialNumber": "3F00AA",
        "version": 3,
    }
    assert info["notAfterUtc"].endswith("T00:00:00Z")


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_999_999, "1970-01-01T00:00:01Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (253402300799_000_000, "9999-12-31T23:59:59Z"),
    ],
)
def test_times_have_whole_seconds(microseconds, text):
    assert utc_text(microseconds) == text


# --- Forms --------------------------------------------------------------------------------------------------

LEAF = fix_pki.chain_leaf()
PEM = LEAF.certificate_pem.decode()
BODY = "".join(PEM.splitlines()[1:-1])


@pytest.mark.parametrize(
    "form",
    [
        PEM,
        PEM.rstrip(),
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", " "),
        PEM.replace("CERTIFICATE", "X509 CERTIFICATE"),
        f"Bag Attributes\n    friendlyName: x\nsubject=CN = dev-01\n{PEM}trailing text\n",
        base64.b64encode(PEM.encode()).decode(),
        base64.encodebytes(PEM.encode()).decode(),
        BODY,
        base64.encodebytes(LEAF.certificate).decode(),
        f"  {BODY}\n",
        LEAF.certificate,
        PEM.encode(),
        b"\xef\xbb\xbf" + PEM.encode(),
        PEM.encode("utf-16"),
        BODY.encode(),
    ],
    ids=[
        "PEM",
        "PEM right-trimmed",
        "PEM of Windows",
        "PEM without line breaks",
        "PEM of old tools",
        "text around PEM",
        "base64 of PEM",
        "base64 of PEM, with line breaks",
        "base64 of DER",
        "base64 of DER, with line breaks",
        "base64 of DER, with space around",
        "DER",
        "bytes of PEM",
        "bytes of PEM with a mark",
        "bytes of PEM in UTF-16",
        "bytes of base64",
    ],
)
def test_every_form_is_read(form):
    assert read_certificates(form) == [LEAF.certificate]


def test_a_chain_is_read_in_its_order():
    assert read_certificates(LEAF.chain_pem) == [LEAF.certificate, *LEAF.chain]


def test_a_key_beside_the_certificate_is_passed_over():
    assert read_certificates(LEAF.key_pem + LEAF.certificate_pem) == [LEAF.certificate]


def pfx():
    return pkcs12.serialize_key_and_certificates(
        b"dev", LEAF.key, x509.load_der_x509_certificate(LEAF.certificate), None, NoEncryption()
    )


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("hello", "neither PEM nor base64"),
        ("aGVsbG8=", "not an X.509 certificate"),
        ("é", "neither PEM nor base64"),
        (b"\xff\xfe\x00", "neither PEM, nor base64, nor DER"),
        (b"\x80abc", "neither PEM, nor base64, nor DER"),
        (b"\x30\x03abc", "not an X.509 certificate"),
        (pfx(), "not an X.509 certificate: it is a PFX file"),
        (LEAF.key_pem, "no certificate, but PRIVATE KEY"),
        (PEM.replace("CERTIFICATE", "CERTIFICATE REQUEST"), "no certificate, but CERTIFICATE REQUEST"),
        (PEM.split("-----END")[0], "an unfinished PEM block"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "empty"),
        ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----", "neither PEM nor base64"),
        (PEM.replace(BODY[:4], "AAAA"), "not an X.509 certificate"),
        (base64.b64encode(b"\xff-----BEGIN").decode(), "neither PEM, nor base64, nor DER"),
    ],
)
def test_what_is_no_certificate_is_refused_with_the_reason(form, reason):
    with pytest.raises(CertificateFormatError, match=re.escape(reason)):
        read_certificates(form)


def test_no_reason_repeats_what_was_handed_over():
    secret = base64.b64encode(b"a private key that was given by mistake").decode()
    with pytest.raises(CertificateFormatError) as caught:
        read_certificates(secret)
    assert secret not in str(caught.value)


def test_a_huge_certificate_is_not_read():
    huge = b"\x30\x83" + (40_000).to_bytes(3) + bytes(40_000)
    with pytest.raises(CertificateFormatError, match="40005 bytes, and no certificate of more than 32768"):
        parse_certificate(huge)
    with pytest.raises(CertificateFormatError, match="40005 bytes"):
        read_certificates(huge)
