import base64
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from muster.pki.certificate_order import moment
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.issuance import Issuer, self_sign
from muster.pki.problem import AuthorityError
from muster.pki.revocation import (
    REASONS,
    Revocation,
    RevocationListError,
    RevocationLists,
    RevocationStatus,
    is_signed_by,
    parse_revocation_list,
    read_revocation_lists,
    sign_revocation_list,
    to_pem,
)
from tests.support import fix_pki
from tests.support.fix_ca import (
    DAY,
    NOW,
    intermediate,
    key,
    leaf,
    openssl,
    openssl_verify,
    order,
    root,
    to_der,
)
from tests.support.fix_ca import to_pem as certificates_pem
from tests.support.fix_pki import rsa_key

ROOT, LINE, DEVICE = (ChainCertificate(to_der(one)) for one in (root().certificate, intermediate().certificate, leaf()))
SERIAL = leaf().serial_number


def signed(issuer=None, revocations=None, number=1, at=NOW, days=30):
    revocations = [Revocation(SERIAL, NOW - DAY, "keyCompromise")] if revocations is None else revocations
    return sign_revocation_list(issuer or intermediate(), revocations, number, at, at + days * DAY)


def lists(*contents):
    return RevocationLists(map(parse_revocation_list, contents))


# --- Making and reading -------------------------------------------------------------------------------------


def test_the_facts():
    found = parse_revocation_list(signed(number=7))
    assert (found.issuer, found.issuer_name, found.number) == (LINE.subject, "CN=Line A", 7)
    assert (found.this_update, found.next_update) == (NOW, NOW + 30 * DAY)
    assert found.revocations == {SERIAL: Revocation(SERIAL, NOW - DAY, "keyCompromise")}


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason(reason):
    found = parse_revocation_list(signed(revocations=[Revocation(5, NOW, reason)]))
    assert found.revocations[5].reason == reason


def test_an_empty_list():
    assert parse_revocation_list(signed(revocations=[])).revocations == {}


@pytest.mark.parametrize("kind", ["ec-p384", "ed25519"])
def test_the_same_arguments_give_the_same_bytes(kind):
    ca = Issuer(self_sign(order("Root", "root-ca", kind=kind), key("Root", kind)), key("Root", kind))
    assert signed(ca) == signed(ca)
    assert is_signed_by(parse_revocation_list(signed(ca)), ChainCertificate(to_der(ca.certificate)))


def test_an_rsa_list():
    ca = Issuer(self_sign(order("R", "root-ca", public_key=rsa_key(2048).public_key()), rsa_key(2048)), rsa_key(2048))
    assert signed(ca) == signed(ca)
    assert is_signed_by(parse_revocation_list(signed(ca)), ChainCertificate(to_der(ca.certificate)))


def test_a_ca_that_may_not_sign_lists():
    usage = {"key_usage": ("keyCertSign",)}
    ca = Issuer(self_sign(order("Root", "root-ca", changes=usage), key("Root")), key("Root"))
    with pytest.raises(AuthorityError, match="cRLSign"):
        signed(ca)


def test_a_ca_without_key_usage_and_identifier_may():
    made = fix_pki.changed(fix_pki.root(), lambda fields: fields[:7])
    ca = Issuer(x509.load_der_x509_certificate(made.certificate), made.key)
    found = parse_revocation_list(signed(ca))
    assert is_signed_by(found, ChainCertificate(made.certificate))


def test_the_next_list_comes_later():
    with pytest.raises(AuthorityError, match="after this one"):
        signed(days=0)


def test_every_form_is_read():
    content = signed()
    pem = to_pem(content)
    forms = (content, pem, pem.decode(), base64.b64encode(content).decode(), b"text before\n" + pem)
    assert {read_revocation_lists(form)[0].der for form in forms} == {content}
    assert [one.issuer_name for one in read_revocation_lists(pem + to_pem(signed(root())))] == [
        "CN=Line A",
        "CN=Plant Root",
    ]


def test_openssl_reads_it(tmp_path):
    text = openssl("crl", "-noout", "-text", text=to_pem(signed(number=7))).stdout.decode()
    assert "Key Compromise" in text
    assert f"Serial Number: {SERIAL:040X}" in text
    (tmp_path / "line").write_bytes(certificates_pem(intermediate().certificate))
    done = openssl("crl", "-noout", "-CAfile", tmp_path / "line", text=to_pem(signed()))
    assert b"verify OK" in done.stderr


@pytest.mark.parametrize(("revocations", "expected"), [((Revocation(SERIAL, NOW),), "certificate revoked"), ((), "OK")])
def test_openssl_honours_it(tmp_path, revocations, expected):
    for name, content in (
        ("root", certificates_pem(root().certificate)),
        ("line", certificates_pem(intermediate().certificate)),
        ("device", certificates_pem(leaf())),
        ("crl", to_pem(signed(revocations=revocations)) + to_pem(signed(root(), ()))),
    ):
        (tmp_path / name).write_bytes(content)
    options = ("-untrusted", tmp_path / "line", "-crl_check_all", "-CRLfile", tmp_path / "crl")
    assert expected in openssl_verify(tmp_path / "root", tmp_path / "device", *options)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a revocation list"),
        (b"\x30\x00", "not a revocation list"),
        (b"\xff\xfe\xfd", "neither PEM, nor base64, nor DER"),
        ("no base64!", "neither PEM nor base64"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "another PEM block"),
        (to_der(leaf()), "not a revocation list"),
    ],
)
def test_what_is_no_list(content, reason):
    with pytest.raises(RevocationListError, match=reason):
        read_revocation_lists(content)


def built(*extensions, entry_extensions=(), next_update=True, serial_number=5):
    entry = x509.RevokedCertificateBuilder().serial_number(serial_number).revocation_date(moment(NOW))
    for extension, critical in entry_extensions:
        entry = entry.add_extension(extension, critical)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(intermediate().certificate.subject)
        .last_update(moment(NOW))
        .next_update(moment(NOW) + timedelta(days=1))
        .add_revoked_certificate(entry.build())
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key("Line A"), hashes.SHA256()).public_bytes(Encoding.DER)


def test_what_a_list_need_not_say():
    found = parse_revocation_list(built((x509.IssuerAlternativeName([x509.DNSName("x")]), False)))
    assert (found.number, found.revocations[5].reason) == (None, "unspecified")


def test_a_partial_list_is_not_relied_upon():
    partial = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    for extension in (partial, x509.DeltaCRLIndicator(1)):
        with pytest.raises(RevocationListError, match="is not a complete list"):
            parse_revocation_list(built((extension, True)))


def test_an_entry_of_another_issuer_is_not_relied_upon():
    other = x509.CertificateIssuer([x509.DirectoryName(root().certificate.subject)])
    with pytest.raises(RevocationListError, match="critical extension"):
        parse_revocation_list(built(entry_extensions=[(other, True)]))


def test_other_facts_of_an_entry_are_passed_over():
    since = x509.InvalidityDate(moment(NOW - DAY).replace(tzinfo=None))
    found = parse_revocation_list(
        built(entry_extensions=[(since, False), (x509.CRLReason(x509.ReasonFlags.superseded), False)])
    )
    assert found.revocations[5] == Revocation(5, NOW, "superseded")


def test_a_serial_number_against_the_standard_is_found_by_its_octets():
    """A certificate with the serial number FF, which is -1, is read as FF by ``pki/certificate.py``."""
    content = built(serial_number=0x7F)
    odd = content.replace(bytes.fromhex("02017f"), bytes.fromhex("0201ff"))
    assert content.count(bytes.fromhex("02017f")) == 1
    assert list(parse_revocation_list(odd).revocations) == [0xFF]


# --- What it says -------------------------------------------------------------------------------------------


def test_a_revoked_certificate():
    content = signed()
    known = lists(content)
    found = known.find(DEVICE, LINE, NOW)
    assert found == known.find(DEVICE, LINE, NOW)
    assert found.status is RevocationStatus.REVOKED
    assert found.revocation.reason == "keyCompromise"
    assert found.source.der == content


@pytest.mark.parametrize("now", [NOW - 99 * DAY, NOW + 99 * DAY])
def test_a_revocation_counts_whatever_the_age_of_the_list(now):
    assert lists(signed()).find(DEVICE, LINE, now).status is RevocationStatus.REVOKED


def test_a_good_certificate():
    found = lists(signed(revocations=[Revocation(SERIAL + 1, NOW)])).find(DEVICE, LINE, NOW + 30 * DAY)
    assert (found.status, found.revocation) == (RevocationStatus.GOOD, None)


def test_a_stale_list():
    found = lists(signed(revocations=())).find(DEVICE, LINE, NOW + 30 * DAY + 1)
    assert found.status is RevocationStatus.STALE
    assert found.source is not None


def test_without_a_list_nothing_is_known():
    assert lists().find(DEVICE, LINE, NOW) == (RevocationStatus.UNKNOWN, None, None)
    assert lists(signed(root())).find(DEVICE, LINE, NOW).status is RevocationStatus.UNKNOWN


def test_the_newest_list_counts():
    older, newer = signed(number=1), signed(revocations=(), number=2, at=NOW + 1_000_000)
    same_time = signed(revocations=(), number=2)
    for contents in ((older, newer), (newer, older), (older, same_time), (same_time, older)):
        assert lists(*contents).find(DEVICE, LINE, NOW).status is RevocationStatus.GOOD


def test_a_list_of_a_namesake_counts_for_nothing():
    namesake = Issuer(
        self_sign(order("Line A", "root-ca", kind="ed25519"), key("Line A", "ed25519")), key("Line A", "ed25519")
    )
    forged = signed(namesake, at=NOW + DAY)
    assert not is_signed_by(parse_revocation_list(forged), LINE)
    assert lists(forged, signed(revocations=())).find(DEVICE, LINE, NOW).status is RevocationStatus.GOOD


def test_a_list_of_a_certificate_that_may_not_sign_lists_counts_for_nothing():
    usage = {"key_usage": ("keyCertSign",)}
    own = self_sign(order("Line A", "root-ca", changes=usage), key("Line A"))
    assert not is_signed_by(parse_revocation_list(signed()), ChainCertificate(to_der(own)))


def test_a_list_by_a_key_that_cannot_be_read():
    odd = fix_pki.changed(
        fix_pki.issue("Line A", key=key("Line A"), is_ca=True),
        lambda fields: [
            *fields[:6],
            fields[6].replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0277")),
            *fields[7:],
        ],
    )
    assert ChainCertificate(odd.certificate).subject == LINE.subject
    assert not is_signed_by(parse_revocation_list(signed()), ChainCertificate(odd.certificate))


def test_a_chain_is_judged_link_by_link():
    revoked_line = Revocation(intermediate().certificate.serial_number, NOW, "cACompromise")
    found = lists(signed(revocations=()), signed(root(), [revoked_line])).judge((DEVICE, LINE, ROOT), NOW)
    assert [one.status for one in found] == [RevocationStatus.GOOD, RevocationStatus.REVOKED]
    assert lists().judge((ROOT,), NOW) == ()


def test_an_entry_that_was_taken_back_does_not_count():
    """``removeFromCRL`` (RFC 5280 5.3.1), as OpenSSL has it: the certificate is not on the list."""
    released = (
        x509.RevokedCertificateBuilder()
        .serial_number(SERIAL)
        .revocation_date(moment(NOW))
        .add_extension(x509.CRLReason(x509.ReasonFlags.remove_from_crl), critical=False)
        .build()
    )
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(intermediate().certificate.subject)
        .last_update(moment(NOW))
        .next_update(moment(NOW + DAY))
        .add_revoked_certificate(released)
        .sign(intermediate().key, hashes.SHA256())
    )
    known = lists(made.public_bytes(Encoding.DER))
    assert known.find(DEVICE, LINE, NOW).status is RevocationStatus.GOOD


def test_what_is_remembered_of_issuers_is_bounded():
    """Devices send issuers of any key under a name that has a list."""
    known = lists(signed())
    content = to_der(self_sign(order("Line A", "root-ca"), key("Line A")))
    for number in range(300):
        stranger = ChainCertificate(content)
        stranger.public_key_info = str(number).encode()
        assert known.newest_of(stranger) is None
    assert known.newest_of(LINE) is not None
    assert len(known._newest) <= 256
