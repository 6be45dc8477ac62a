"""The tutorial's literal command, and ``muster cert device`` without options: both make RSA-4096 keys, which takes
seconds, so they are not unit tests.
"""

import json

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.support import fix_pki
from tests.support.fix_pki import DAY, NOW
from typer.testing import CliRunner

from muster.cli import cert
from muster.domain.attestation import EnrolledCertificates, attest_x509_individual, enrolled_certificate
from muster.domain.report import Outcome
from muster.pki.authority import create_device_certificate
from muster.pki.certificate import parse_certificate, read_certificates


@pytest.fixture(scope="module")
def made():
    return create_device_certificate("raspberrypi-b", NOW, pass_phrase="1234")


def only_certificate(pem):
    (certificate,) = read_certificates(pem)
    return certificate


def test_the_tutorials_certificate():
    facts = parse_certificate(only_certificate(fix_pki.tutorial_files().certificate.read_bytes()))
    assert (facts.subject, facts.version) == ("CN=raspberrypi-b", 3)
    assert (facts.key_algorithm, facts.key_size, facts.signature_hash) == ("RSA", 4096, "SHA-256")
    assert (facts.is_ca, facts.extended_key_usage) == (False, ("clientAuth",))


def test_our_certificate(made):
    facts = parse_certificate(only_certificate(made.certificate_pem))
    assert (facts.subject, facts.version) == ("CN=raspberrypi-b", 3)
    assert (facts.key_algorithm, facts.key_size, facts.signature_hash) == ("RSA", 4096, "SHA-256")
    assert (facts.is_ca, facts.extended_key_usage) == (False, ("clientAuth",))
    assert facts.key_usage == ("digitalSignature", "keyEncipherment")


def test_both_keys_open_with_the_pass_phrase(made):
    for key in (made.key_pem, fix_pki.tutorial_files().key.read_bytes()):
        assert b"ENCRYPTED" in key
        assert load_pem_private_key(key, b"1234").key_size == 4096


def test_both_are_accepted_without_a_remark(made):
    for pem in (made.certificate_pem, fix_pki.tutorial_files().certificate.read_bytes()):
        certificate = only_certificate(pem)
        enrolled = EnrolledCertificates(primary=enrolled_certificate(certificate))
        checks = attest_x509_individual((certificate,), enrolled, "raspberrypi-b", NOW + DAY)
        assert {check.outcome for check in checks} == {Outcome.PASSED}


def test_inspect_accepts_both(made, tmp_path):
    (tmp_path / "made.pem").write_bytes(made.certificate_pem)
    for file in (tmp_path / "made.pem", fix_pki.tutorial_files().certificate):
        result = CliRunner().invoke(cert.app, ["inspect", str(file), "-o", "json"])
        assert result.exit_code == 0
        assert json.loads(result.stdout)["accepted"]
