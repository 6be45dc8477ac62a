"""What the builder never makes: certificates of another origin, held against an order."""

import pytest
from cryptography import x509

from muster.pki.certificate_lint import certificate_problems
from tests.support import fix_pki
from tests.support.fix_ca import intermediate, leaf, order, root
from tests.support.fix_pki import CLIENT_AUTH, NOW, SERVER_AUTH, ec_key, make_certificate

WRONG = ["certificate.key-usage"]
"""The certificates of ``fix_pki`` have no key usage."""


def ids(wanted, above=(), **options):
    made = make_certificate("dev-01", key=ec_key(), **options)
    return [one.id for one in certificate_problems(x509.load_der_x509_certificate(made), wanted, above)]


def test_a_good_certificate_has_no_problem():
    assert certificate_problems(leaf(), order("dev-01"), intermediate().chain) == ()


@pytest.mark.parametrize(
    ("profile", "options", "expected"),
    [
        ("device", {}, []),
        ("device", {"is_ca": True}, ["certificate.basic-constraints"]),
        ("device", {"is_ca": None}, ["certificate.basic-constraints"]),
        ("device", {"usages": None}, ["certificate.extended-key-usage"]),
        ("device", {"usages": (SERVER_AUTH, CLIENT_AUTH)}, ["certificate.extended-key-usage"]),
        ("server", {}, ["certificate.extended-key-usage"]),
        ("intermediate-ca", {"is_ca": True, "usages": None}, ["certificate.basic-constraints"]),
        ("intermediate-ca", {"is_ca": True, "usages": None, "path_length": 0}, []),
        ("root-ca", {"is_ca": True, "usages": None}, []),
        ("root-ca", {"is_ca": True}, ["certificate.extended-key-usage"]),
    ],
)
def test_constraints_and_usages(profile, options, expected):
    found = ids(order("dev-01", profile), **options)
    assert sorted(found) == sorted([*WRONG, *expected])


def test_limits_that_nobody_ordered():
    limits = x509.NameConstraints([x509.DNSName("x")], None)
    found = ids(order("dev-01"), extensions=[(limits, True)])
    assert found == [*WRONG, "certificate.name-constraints"]


def test_an_issuer_that_was_not_meant():
    assert ids(order("dev-01"), root().chain) == [*WRONG, "certificate.issuer"]
    assert ids(order("dev-01"), issuer=fix_pki.root()) == [*WRONG, "certificate.issuer"]


def test_an_issuer_has_to_be_named_by_its_key():
    above = (x509.load_der_x509_certificate(fix_pki.root().certificate),)
    within = {"issuer": fix_pki.root(), "not_before": NOW}
    assert ids(order("dev-01"), above, **within) == [*WRONG, "certificate.issuer"]
    assert ids(order("dev-01"), above, names_issuer_key=True, **within) == WRONG
