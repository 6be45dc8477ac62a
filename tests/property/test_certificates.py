"""Whatever a device presents or a person hands over: a value, or the documented error, never anything else."""

import base64
import json
import string

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.domain.attestation import (
    COMMON_NAME_LENGTH,
    EnrolledCertificates,
    attest_device_thumbprint,
    attest_x509_individual,
    enrolled_certificate,
)
from muster.domain.check_table import quoted, verdict
from muster.domain.registration_id import registration_id_key, registration_id_problem
from muster.pki.certificate import (
    Certificate,
    CertificateFormatError,
    certificate_info,
    parse_certificate,
    read_certificates,
)
from tests.support import fix_pki
from tests.support.fix_pki import NOW, ec_key, make_certificate

SECOND = 1_000_000
GOOD = [
    fix_pki.self_signed().certificate,
    fix_pki.version_1().certificate,
    fix_pki.rsa_1024_sha1().certificate,
    fix_pki.chain_leaf().certificate,
]
LEGAL = string.ascii_letters + string.digits + "-._:,"


@st.composite
def damaged(draw):
    """A real certificate with some of its bytes changed, and perhaps cut or grown."""
    certificate = bytearray(draw(st.sampled_from(GOOD)))
    for place in draw(st.lists(st.integers(0, len(certificate) - 1), max_size=4)):
        certificate[place] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(certificate)), st.integers(0, len(certificate))))
    return bytes(certificate[:cut]) + draw(st.binary(max_size=2))


def parsed(content):
    try:
        return parse_certificate(content)
    except CertificateFormatError:
        return None


@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda tail: b"\x30\x82\x01\x00" + tail), damaged())
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_read_or_refused(content):
    certificate = parsed(content)
    if certificate is None:
        return
    assert isinstance(certificate, Certificate)
    assert certificate.der == content
    info = json.loads(msgspec.json.encode(certificate_info(certificate)))
    assert len(info) == 8
    assert all(value not in (None, "") or key in ("subjectName", "issuerName") for key, value in info.items())
    assert len(info["serialNumber"]) % 2 == 0


@given(damaged(), st.lists(damaged(), max_size=2), st.text(max_size=70), st.integers(0, 4 * NOW))
@settings(max_examples=200, deadline=None)
def test_any_chain_is_judged(leaf, above, registration_id, now):
    chain = (leaf, *above)
    for enrolled in (EnrolledCertificates(), EnrolledCertificates(secondary=enrolled_certificate(chain[-1]))):
        checks = attest_x509_individual(chain, enrolled, registration_id, now)
        assert all(check.detail.isprintable() and check.fix.isprintable() for check in checks)
        msgspec.json.encode(checks)
        if parsed(leaf) is None:
            assert verdict(checks) is not None
    msgspec.json.encode(attest_device_thumbprint(chain, None, registration_id, registration_id, now))


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300), damaged()))
@settings(max_examples=300, deadline=None)
def test_anything_handed_over_is_read_or_refused(content):
    try:
        certificates = read_certificates(content)
    except CertificateFormatError:
        return
    assert certificates
    assert all(parsed(certificate) is not None for certificate in certificates)


@given(st.lists(st.sampled_from(GOOD), min_size=1, max_size=3), st.sampled_from(["", "text before\n", "\n\n"]))
def test_every_form_gives_back_the_certificates(certificates, around):
    pem = around + around.join(fix_pki.to_pem(one).decode() for one in certificates) + around
    for form in (pem, pem.encode(), base64.b64encode(pem.encode()).decode()):
        assert read_certificates(form) == certificates
    for form in (certificates[0], base64.b64encode(certificates[0]).decode()):
        assert read_certificates(form) == certificates[:1]


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=COMMON_NAME_LENGTH).filter(
    lambda name: len(name.encode()) <= COMMON_NAME_LENGTH
)
IDENTIFIERS = st.builds(
    lambda first, rest: ".".join(map(str, (*first, *rest))),
    st.one_of(st.tuples(st.integers(0, 1), st.integers(0, 39)), st.tuples(st.just(2), st.integers(0, 2**31))),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=4),
)


@given(
    common_name=NAMES,
    organization=NAMES,
    serial_number=st.integers(1, 2**159 - 1),
    not_before=st.integers(-631_152_000, 4_102_444_800),  # 1950 to 2100: both forms of a time
    usages=st.lists(IDENTIFIERS, min_size=1, max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_what_was_put_into_a_certificate_is_read_from_it(common_name, organization, serial_number, not_before, usages):
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    made = make_certificate(
        None,
        key=ec_key(),
        subject=subject,
        serial_number=serial_number,
        not_before=not_before * SECOND,
        not_after=(not_before + 86_400) * SECOND,
        usages=[ObjectIdentifier(usage) for usage in usages],
    )
    read = parse_certificate(made)
    assert read.common_name == common_name
    assert int(read.serial_number, 16) == serial_number
    assert (read.not_before, read.not_after) == (not_before * SECOND, (not_before + 86_400) * SECOND)
    names = {"1.3.6.1.5.5.7.3.2": "clientAuth"}
    assert read.extended_key_usage == tuple(names.get(usage, usage) for usage in usages)


@given(st.text(max_size=140))
def test_a_registration_id_is_legal_or_not(text):
    legal = 0 < len(text) <= 128 and set(text) <= set(LEGAL)
    assert (registration_id_problem(text) is None) == legal
    assert registration_id_key(registration_id_key(text)) == registration_id_key(text)


@given(st.text(LEGAL, min_size=1, max_size=128))
def test_legal_registration_ids_ignore_case(text):
    assert registration_id_problem(text) is None
    assert registration_id_key(text.upper()) == registration_id_key(text.lower()) == registration_id_key(text)


@given(st.text())
def test_quoted_text_is_printable_and_bounded(text):
    assert quoted(text).isprintable()
    assert len(quoted(text, 10)) <= 10 * len("\\U0010ffff") + len('"..."')
