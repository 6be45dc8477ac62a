"""Proof of possession of a CA's key: roots and intermediates, and everything that is no proof."""

import pytest

from muster.pki.possession import possession_problem
from tests.support.fix_pki import DAY, NOW, Identity, ec_key, intermediate, make_certificate, root, rsa_key

CODE = "0123456789ABCDEF" * 3


def proof(issuer: Identity | None = None, code: str | None = CODE, **more: object) -> bytes:
    return make_certificate(code, key=ec_key("proof"), issuer=issuer or root(), **more)  # type: ignore[arg-type]  # options of another function


def problem(certificate: bytes, authority: Identity | None = None) -> str | None:
    return possession_problem((authority or root()).certificate, CODE, certificate, NOW)


def rsa_root() -> Identity:
    return Identity(make_certificate("RSA Root", key=rsa_key(2048), is_ca=True, usages=None), rsa_key(2048))


@pytest.mark.parametrize("authority", [root, intermediate, rsa_root])
def test_a_certificate_for_the_code_that_the_ca_signed_is_a_proof(authority) -> None:
    assert problem(proof(authority()), authority()) is None


def test_the_root_proves_nothing_about_its_intermediate() -> None:
    assert problem(proof(root()), intermediate()) == "its issuer is not the subject of the CA certificate"


def test_an_intermediate_proves_nothing_about_its_root() -> None:
    assert problem(proof(intermediate()), root()) == "its issuer is not the subject of the CA certificate"


def test_another_key_under_the_same_name_is_no_proof() -> None:
    impostor = Identity(make_certificate("Plant Root", key=ec_key("other"), is_ca=True), ec_key("other"))
    assert problem(proof(impostor)) == "its signature was not made with the key of the CA certificate"


def test_a_self_signed_certificate_is_no_proof() -> None:
    own = make_certificate(CODE, key=ec_key("proof"))
    assert problem(own) == "its issuer is not the subject of the CA certificate"


@pytest.mark.parametrize("code", [CODE.lower(), CODE[:-1], None])
def test_the_common_name_has_to_be_the_code(code: str | None) -> None:
    assert f"and not the verification code {CODE}" in str(problem(proof(code=code)))


@pytest.mark.parametrize("dates", [{"not_after": NOW - DAY, "not_before": NOW - 2 * DAY}, {"not_before": NOW + DAY}])
def test_a_proof_has_dates(dates: dict[str, int]) -> None:
    assert problem(proof(**dates)) == "it is not in its dates"


def test_what_is_no_certificate_is_told() -> None:
    assert "not an X.509 certificate" in str(problem(b"\x30\x03\x02\x01\x01"))


def test_a_ca_whose_key_nobody_knows_how_to_use_is_told() -> None:
    certificate = proof()
    curve = bytes.fromhex("06082a8648ce3d030107")
    authority = root().certificate.replace(curve, bytes.fromhex("06082a8648ce3d0301ff"[:-2] + "7f"))
    found = possession_problem(authority, CODE, certificate, NOW)
    assert found is not None
    assert "cannot be verified" in found
