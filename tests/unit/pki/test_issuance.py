import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.pki.certificate import is_self_signed, parse_certificate
from muster.pki.certificate_order import (
    Validity,
    make_order,
    microseconds,
    moment,
    new_serial_number,
    order_for_request,
    validity,
)
from muster.pki.certificate_profiles import PROFILES
from muster.pki.certificate_request import parse_certificate_request
from muster.pki.issuance import Issuer, issue, issuers_of, prove_possession, self_sign
from muster.pki.possession import possession_problem
from muster.pki.problem import AuthorityError
from tests.support import fix_pki
from tests.support.fix_ca import (
    DAY,
    NOW,
    entropy,
    intermediate,
    key,
    leaf,
    openssl,
    openssl_verify,
    order,
    request,
    root,
    to_der,
    to_pem,
)
from tests.support.fix_pki import rsa_key

CODE = "75B86466DA34D2B04C0C4C9557A119687ADAE7D4732BDDB3"


def facts(certificate):
    return parse_certificate(to_der(certificate))


def reasons(order, issuer=None):
    """The ids of what speaks against signing it."""
    with pytest.raises(AuthorityError) as caught:
        issue(order, issuer or intermediate())
    assert all(problem.detail in str(caught.value) for problem in caught.value.problems)
    return [problem.id for problem in caught.value.problems]


# --- Orders -------------------------------------------------------------------------------------------------


def test_dates_are_whole_seconds_from_a_day_before():
    assert validity(NOW + 1_500_000, 10) == (NOW + 1_000_000 - DAY, NOW + 1_000_000 + 10 * DAY)


def test_dates_lie_within_those_of_the_ca():
    ca = root().certificate
    start, end = microseconds(ca.not_valid_before_utc), microseconds(ca.not_valid_after_utc)
    assert validity(start + 5, 99_999, ca) == (start, end)
    assert validity(NOW, 99_999, ca, shorten=False).not_after == NOW + 99_999 * DAY
    assert validity(NOW + 5 * DAY, 10, ca) == (NOW + 4 * DAY, NOW + 15 * DAY)


def test_a_ca_that_has_expired_certifies_nothing():
    end = microseconds(root().certificate.not_valid_after_utc)
    with pytest.raises(AuthorityError, match="the CA has expired"):
        validity(end, 10, root().certificate)
    assert validity(end - 1_000_000, 10, root().certificate).not_after == end


@pytest.mark.parametrize(("days", "reason"), [(0, "at least 1 day"), (10**7, "beyond the year 9999"), (10**30, "9999")])
def test_dates_that_cannot_be(days, reason):
    with pytest.raises(AuthorityError, match=reason):
        validity(NOW, days)


def test_moments():
    assert microseconds(moment(NOW)) == NOW
    assert microseconds(moment(NOW + 999_999)) == NOW


def test_serial_numbers_are_positive_and_short():
    numbers = [new_serial_number(entropy(seed)) for seed in range(50)]
    assert len(set(numbers)) == 50
    assert all(0 < number < 2**159 for number in numbers)
    assert new_serial_number(bytes) == 1
    assert new_serial_number(lambda count: b"\xff" * count) == 2**159 - 1


def test_an_order_follows_the_profile():
    made = make_order(
        PROFILES["server"], "plant.example", key("a").public_key(), Validity(0, 1), 7, (x509.DNSName("x"),)
    )
    assert made.alternative_names == (x509.DNSName("plant.example"), x509.DNSName("x"))
    assert made.limits is None
    limited = order("Line A", "intermediate-ca", changes={"permitted": ("DNS:x",), "subject": "O=Contoso"})
    assert limited.limits == x509.NameConstraints([x509.DNSName("x")], None)
    assert limited.subject.rfc4514_string() == "CN=Line A,O=Contoso"


def test_an_order_for_a_name_that_cannot_be():
    with pytest.raises(AuthorityError, match="no DNS name"):
        order("no host", "server")


def test_an_order_for_a_request_takes_key_name_and_alternative_names():
    wishes = [x509.SubjectAlternativeName([x509.DNSName("dev-01")])]
    found = parse_certificate_request(request("dev-01", extensions=wishes).public_bytes(Encoding.DER))
    made = order_for_request(found, PROFILES["device"], "dev-01", validity(NOW, 1), 7, (x509.DNSName("DEV-01"),))
    assert made.public_key == key("dev-01").public_key()
    assert made.alternative_names == (x509.DNSName("dev-01"), x509.DNSName("DEV-01"))
    with pytest.raises(AuthorityError, match="not for 'dev-02'") as caught:
        order_for_request(found, PROFILES["device"], "dev-02", validity(NOW, 1), 7)
    assert [problem.id for problem in caught.value.problems] == ["csr.common-name", "csr.alternative-name"]


# --- Certificates -------------------------------------------------------------------------------------------


def test_a_root():
    read = facts(root().certificate)
    assert (read.subject, read.is_ca, read.key_usage) == ("CN=Plant Root", True, ("keyCertSign", "cRLSign"))
    assert read.extended_key_usage is None
    assert is_self_signed(read)
    assert (read.not_before, read.not_after) == (NOW - DAY, NOW + 7300 * DAY)


def test_an_intermediate():
    read = facts(intermediate().certificate)
    assert (read.subject, read.issuer, read.is_ca) == ("CN=Line A", "CN=Plant Root", True)
    constraints = intermediate().certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.path_length) == (True, 0)


def test_a_device():
    read = facts(leaf())
    assert (read.subject, read.issuer, read.is_ca, read.version) == ("CN=dev-01", "CN=Line A", False, 3)
    assert (read.key_usage, read.extended_key_usage) == (("digitalSignature",), ("clientAuth",))
    above = intermediate().certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    named = leaf().extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert named.key_identifier == above.key_identifier


def test_everything_a_profile_can_say():
    changes = {"crl_urls": ("http://plant.example/ca.crl",), "subject": "O=Contoso", "path_length": 1}
    limited = {"permitted": ("DNS:plant.example",), "excluded": ("IP:0.0.0.0/0",)}
    made = issue(order("Line B", "intermediate-ca", changes={**changes, **limited}), root())
    limits = made.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert limits.value.permitted_subtrees == [x509.DNSName("plant.example")]
    (point,) = made.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name == [x509.UniformResourceIdentifier("http://plant.example/ca.crl")]
    assert made.subject.rfc4514_string() == "CN=Line B,O=Contoso"


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ec-p521", "ed25519"])
def test_the_same_arguments_give_the_same_bytes(kind):
    def make():
        own = self_sign(order("Root", "root-ca", kind=kind), key("Root", kind))
        return own, issue(order("dev-01", kind=kind), Issuer(own, key("Root", kind)))

    assert make() == make()


def test_rsa_signatures_are_deterministic_too():
    wanted = order("Root", "root-ca", public_key=rsa_key(2048).public_key())
    assert self_sign(wanted, rsa_key(2048)) == self_sign(wanted, rsa_key(2048))
    ca = Issuer(self_sign(wanted, rsa_key(2048)), rsa_key(2048))
    assert facts(issue(order("dev-01"), ca)).signature_hash == "SHA-256"


def test_an_rsa_key_may_encipher_keys():
    made = issue(order("dev-01", public_key=rsa_key(2048).public_key()), intermediate())
    assert facts(made).key_usage == ("digitalSignature", "keyEncipherment")


def test_a_self_signed_device_names_no_issuer_key():
    made = self_sign(order("dev-01"), key("dev-01"))
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert is_self_signed(facts(made))


@pytest.mark.parametrize("kinds", [("ec-p384", "ec-p256", "ed25519"), ("ed25519", "ec-p521", "ec-p256")])
def test_openssl_accepts_the_chain(tmp_path, kinds):
    top, middle, bottom = kinds
    own = Issuer(self_sign(order("Root", "root-ca", kind=top), key("Root", top)), key("Root", top))
    line = Issuer(issue(order("Line", "intermediate-ca", kind=middle), own), key("Line", middle), own.chain)
    device = issue(order("dev-01", kind=bottom), line)
    for name, one in (("root", own.certificate), ("line", line.certificate), ("device", device)):
        (tmp_path / name).write_bytes(to_pem(one))
    options = ("-untrusted", tmp_path / "line", "-purpose", "sslclient")
    assert openssl_verify(tmp_path / "root", tmp_path / "device", *options) == f"{tmp_path}/device: OK"
    assert "error" in openssl_verify(tmp_path / "root", tmp_path / "device")


def test_an_issuer_without_a_key_identifier():
    ca = Issuer(x509.load_der_x509_certificate(fix_pki.root().certificate), fix_pki.root().key)
    older = fix_pki.changed(fix_pki.root(), lambda fields: [*fields[:7], _only_basic_constraints(fields[7])])
    bare = Issuer(x509.load_der_x509_certificate(older.certificate), older.key)
    wanted = order("dev-01", valid=Validity(fix_pki.NOW, fix_pki.NOW + DAY))
    named = [
        issue(wanted, one).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        for one in (ca, bare)
    ]
    assert named[0] == named[1]


def _only_basic_constraints(_):
    extension = fix_pki.element(
        0x30, bytes.fromhex("0603551d13") + bytes.fromhex("0101ff") + bytes.fromhex("040530030101ff")
    )
    return fix_pki.element(0xA3, fix_pki.element(0x30, extension))


def test_the_certificates_above_one_are_found():
    known = [leaf(), root().certificate, intermediate().certificate, intermediate("Line B").certificate]
    assert issuers_of(leaf(), known) == intermediate().chain
    assert issuers_of(leaf(), known[:2]) == ()
    assert issuers_of(root().certificate, known) == ()
    assert issuers_of(intermediate().certificate, known) == root().chain


# --- What is not signed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (order("dev-01", subject=x509.Name([])), ["certificate.common-name"]),
        (order("dev 01"), ["certificate.common-name"]),
        (order("dev-01", alternative_names=(x509.DNSName("x"),)), ["certificate.alternative-name"]),
        (order("dev-01", valid=Validity(NOW, NOW + 9999 * DAY)), ["certificate.dates"]),
        (order("dev-01", valid=Validity(NOW - 2 * DAY, NOW)), ["certificate.dates"]),
        (order("dev-01", valid=Validity(NOW, NOW)), ["certificate.dates"]),
        (order("dev-01", public_key=rsa_key(1024).public_key()), ["certificate.key"]),
        (order("Line A"), ["certificate.common-name", "certificate.key"]),
        (order("dev-01", public_key=key("Plant Root").public_key()), ["certificate.key"]),
        (order("Below", "intermediate-ca"), ["certificate.path-length"]),
    ],
)
def test_why_a_certificate_is_not_signed(wanted, expected):
    assert reasons(wanted) == expected


def test_the_path_length_counts_every_ca_above():
    top = Issuer(self_sign(order("Top", "root-ca", changes={"path_length": 1}), key("Top")), key("Top"))
    middle_order = order("Middle", "intermediate-ca", changes={"path_length": None})
    middle = Issuer(issue(middle_order, top), key("Middle"), top.chain)
    assert reasons(order("Bottom", "intermediate-ca"), middle) == ["certificate.path-length"]
    assert issue(order("dev-01"), middle).subject == leaf().subject


def test_names_that_a_ca_above_may_not_certify():
    limits = {"permitted": ("DNS:plant.example", "DN:O=Contoso"), "path_length": None}
    top = Issuer(self_sign(order("Top", "root-ca", changes=limits), key("Top")), key("Top"))
    middle = Issuer(issue(order("M", "intermediate-ca", changes={"subject": "O=Contoso"}), top), key("M"), top.chain)
    good = {"subject": "O=Contoso"}
    assert issue(order("a.plant.example", "server", changes=good), middle)
    assert reasons(order("a.other.example", "server", changes=good), middle) == ["certificate.name-constraints"]
    assert reasons(order("dev-01"), middle) == ["certificate.name-constraints"]


def test_a_device_cannot_issue():
    device = Issuer(leaf(), key("dev-01"), intermediate().chain)
    assert reasons(order("dev-02"), device) == ["certificate.issuer", "certificate.path-length"]


def test_dates_that_overflow_are_told():
    with pytest.raises(AuthorityError, match="9999"):
        validity(NOW, 3_000_000)


def test_an_issuer_has_its_own_key():
    with pytest.raises(AuthorityError, match="does not belong"):
        Issuer(root().certificate, key("other"))


def test_an_issuer_can_be_read():
    odd = fix_pki.issue("CA", extensions=[(x509.UnrecognizedExtension(x509.KeyUsage.oid, b"\x04\x00"), False)])
    with pytest.raises(AuthorityError, match="cannot be read"):
        Issuer(x509.load_der_x509_certificate(odd.certificate), odd.key)


def test_an_issuer_does_not_show_its_key():
    assert "Private" not in repr(root())


# --- Proof of possession ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ca", [root(), intermediate()])
def test_a_proof_of_possession(ca):
    proof = prove_possession(ca, CODE, NOW, entropy())
    assert possession_problem(to_der(ca.certificate), CODE, to_der(proof), NOW) is None
    assert possession_problem(to_der(ca.certificate), CODE, to_der(proof), NOW + 8 * DAY) is not None
    assert facts(proof).is_ca is False


def test_a_proof_for_no_code():
    with pytest.raises(AuthorityError, match="does not take the common name"):
        prove_possession(root(), "no code", NOW, entropy())


def test_openssl_reads_a_device_certificate():
    text = openssl("x509", "-noout", "-text", text=to_pem(leaf())).stdout.decode()
    for part in ("CA:FALSE", "TLS Web Client Authentication", "Subject: CN = dev-01", "Version: 3"):
        assert part in text
