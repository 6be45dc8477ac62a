import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from muster.pki.certificate import CertificateFormatError
from muster.pki.chain_certificate import ChainCertificate
from tests.support import fix_pki
from tests.support.fix_pki import DAY, changed, element, issue

ROOT, INTERMEDIATE, LEAF = fix_pki.root(), fix_pki.intermediate(), fix_pki.chain_leaf()
UNKNOWN = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")


def loaded(identity):
    return ChainCertificate(identity.certificate)


def signed(child, issuer):
    return loaded(child).is_signed_by(loaded(issuer))


def extension(identifier, value=b"\x05\x00", critical=False):
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(identifier), value), critical


# --- What stands in it --------------------------------------------------------------------------------------


def test_bytes_that_are_no_certificate():
    with pytest.raises(CertificateFormatError):
        ChainCertificate(b"garbage")


def test_names_are_bytes():
    assert loaded(LEAF).issuer == loaded(INTERMEDIATE).subject != loaded(LEAF).subject


def test_key_identifiers():
    named = loaded(issue("dev-02", INTERMEDIATE, names_issuer_key=True))
    assert named.authority_key_identifier == loaded(INTERMEDIATE).key_identifier is not None
    assert loaded(LEAF).authority_key_identifier is None
    assert loaded(fix_pki.version_1()).key_identifier is None


@pytest.mark.parametrize("value", [b"", b"\x04\x01", b"\x30\x00", b"\x30\x03\x82\x01\x05"])
def test_an_authority_key_identifier_without_one(value):
    assert loaded(issue("dev-02", ROOT, extensions=[extension("2.5.29.35", value)])).authority_key_identifier is None


@pytest.mark.parametrize("length", [None, 0, 3])
def test_the_path_length(length):
    assert loaded(issue("ca", is_ca=True, path_length=length)).path_length == length
    assert loaded(LEAF).path_length is None


def ca_with_constraints(value):
    return issue("ca", is_ca=None, extensions=[extension("2.5.29.19", value)])


def test_basic_constraints_that_cannot_be_read():
    broken = loaded(ca_with_constraints(b"\x05"))
    assert broken.path_length is None
    assert not broken.may_issue
    assert broken.extension_problem == "the extension basicConstraints cannot be read"


def key_usage(**bits):
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
        " encipher_only decipher_only"
    )
    return [(x509.KeyUsage(**(dict.fromkeys(names.split(), False) | bits)), True)]


def test_what_may_issue():
    assert loaded(ROOT).may_issue
    assert loaded(issue("ca", is_ca=True, extensions=key_usage(key_cert_sign=True))).may_issue
    assert not loaded(issue("ca", is_ca=True, extensions=key_usage(crl_sign=True))).may_issue
    assert not loaded(LEAF).may_issue
    assert not loaded(issue("ca", is_ca=None)).may_issue
    assert not loaded(fix_pki.version_1()).may_issue


@pytest.mark.parametrize(("now", "inside"), [(-1, False), (0, True), (DAY, True), (DAY + 1, False)])
def test_both_ends_belong_to_the_dates(now, inside):
    start = 1_000 * DAY
    dated = issue("dev-02", ROOT, not_before=start, not_after=start + DAY)
    assert loaded(dated).in_dates(start + now) is inside


def test_dates_that_cannot_be_read_hold_never():
    dated = issue("dev-02", not_before=1_000 * DAY, not_after=2_000 * DAY)
    broken = ChainCertificate(dated.certificate.replace(b"720927000000Z", b"721327000000Z"))
    assert not broken.in_dates(1_500 * DAY)


@pytest.mark.parametrize("one", [ROOT, INTERMEDIATE, LEAF, fix_pki.version_1()])
def test_ordinary_extensions_are_no_problem(one):
    assert loaded(one).extension_problem == ""


def test_a_critical_extension_that_is_not_known():
    critical = loaded(issue("dev-02", ROOT, extensions=[(x509.UnrecognizedExtension(UNKNOWN, b""), True)]))
    assert critical.extension_problem == f"the extension {UNKNOWN.dotted_string} is critical, and not known here"
    lenient = loaded(issue("dev-02", ROOT, extensions=[(x509.UnrecognizedExtension(UNKNOWN, b""), False)]))
    assert lenient.extension_problem == ""
    assert lenient.extensions[UNKNOWN.dotted_string] == (False, b"")


@pytest.mark.parametrize("identifier", ["2.5.29.32", "2.5.29.36", "2.5.29.31"])
def test_policies_and_places_of_crls_may_be_critical(identifier):
    assert (
        loaded(issue("ca", ROOT, is_ca=True, extensions=[extension(identifier, critical=True)])).extension_problem == ""
    )


def twice(fields):
    *others, wrapper = fields
    return [*others, wrapper + wrapper]


def test_an_extension_that_stands_there_twice():
    doubled = changed(LEAF, twice, signer=INTERMEDIATE)
    assert "twice" in loaded(doubled).extension_problem


@pytest.mark.parametrize("extensions", [b"\x05\x00", element(0x30, b"\x30\x00"), element(0x30, b"\x05\x00"), b""])
def test_extensions_that_cannot_be_read(extensions):
    broken = changed(LEAF, lambda fields: [*fields[:-1], element(0xA3, extensions)], signer=INTERMEDIATE)
    assert loaded(broken).extension_problem == "its extensions cannot be read"


def test_an_extended_key_usage_that_cannot_be_read():
    broken = loaded(issue("dev-02", ROOT, usages=None, extensions=[extension("2.5.29.37", b"\x05")]))
    assert broken.extension_problem == "the extension extendedKeyUsage cannot be read"


def test_name_constraints():
    constraints = x509.NameConstraints([x509.DNSName("plant.example")], None)
    assert loaded(issue("ca", is_ca=True, extensions=[(constraints, True)])).name_constraints == constraints
    assert loaded(ROOT).name_constraints is None
    broken = loaded(issue("ca", is_ca=True, extensions=[extension("2.5.29.30", b"\x05")]))
    with pytest.raises(ValueError, match=r"."):
        assert broken.name_constraints


def test_name_constraints_of_a_certificate_that_cannot_be_loaded():
    made = issue("a_ca", is_ca=True, extensions=[(x509.NameConstraints([x509.DNSName("a")], None), True)])
    with pytest.raises(ValueError, match="cannot be loaded"):
        assert loaded(odd_subject(made)).name_constraints


# --- Signatures ---------------------------------------------------------------------------------------------

ODD_NAME = element(0x30, element(0x31, element(0x30, b"\x06\x03\x55\x04\x03" + element(0x13, b"odd_name"))))
"""An underscore in a PrintableString: ``cryptography`` does not load a certificate with it."""


def odd_subject(identity, signer=None):
    return changed(identity, lambda fields: [*fields[:5], ODD_NAME, *fields[6:]], signer=signer)


def odd_issuer(identity, signer):
    return changed(identity, lambda fields: [*fields[:3], ODD_NAME, *fields[4:]], signer=signer)


def test_a_signature_is_that_of_the_issuer_of_that_name():
    assert signed(LEAF, INTERMEDIATE)
    assert signed(INTERMEDIATE, ROOT)
    assert signed(ROOT, ROOT)
    assert not signed(LEAF, ROOT)
    assert not signed(INTERMEDIATE, LEAF)


def test_another_key_under_the_same_name():
    assert not signed(LEAF, issue("Line A Intermediate", is_ca=True, key=fix_pki.ec_key("other")))


def test_a_changed_byte():
    assert not ChainCertificate(LEAF.certificate.replace(b"dev-01", b"dev-02")).is_signed_by(loaded(INTERMEDIATE))


def test_a_name_in_another_encoding_is_another_name():
    other = INTERMEDIATE.certificate.replace(b"\x0c\x13Line A Intermediate", b"\x13\x13Line A Intermediate")
    assert other != INTERMEDIATE.certificate
    assert not loaded(LEAF).is_signed_by(ChainCertificate(other))


KEYS = {
    "rsa": fix_pki.rsa_key(2048),
    "p256": fix_pki.ec_key("p256"),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_key_signs(kind):
    ca, other = issue("CA", is_ca=True, key=KEYS[kind]), issue("CA", is_ca=True, key=fix_pki.ec_key("other"))
    leaf = issue("dev-02", ca)
    assert signed(leaf, ca)
    assert not signed(leaf, other)
    assert not signed(issue("dev-02", other), ca)


@pytest.mark.parametrize("kind", KEYS)
def test_certificates_that_cannot_be_loaded_are_verified_all_the_same(kind):
    ca, other = issue("CA", is_ca=True, key=KEYS[kind]), issue("CA", is_ca=True, key=fix_pki.ec_key("other"))
    leaf = odd_subject(issue("dev-02", ca), ca)
    assert loaded(leaf).loaded is None
    assert signed(leaf, ca)
    assert not signed(leaf, other)
    assert not signed(odd_subject(issue("dev-02", other), other), ca)


def test_an_issuer_that_cannot_be_loaded_signs_all_the_same():
    ca, other = odd_subject(ROOT), odd_subject(issue("other", is_ca=True))
    leaf = odd_issuer(issue("dev-02", ROOT), ROOT)
    assert loaded(ca).loaded is None
    assert signed(leaf, ca)
    assert not signed(leaf, other)


def test_a_hash_that_is_not_known_signs_nothing():
    ca = issue("CA", is_ca=True, key=KEYS["rsa"])
    leaf = odd_subject(issue("dev-02", ca), ca)
    sha256, unknown = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d01017f")
    assert not ChainCertificate(leaf.certificate.replace(sha256, unknown)).is_signed_by(loaded(ca))


def test_the_algorithm_stands_there_twice_and_has_to_be_the_same():
    ecdsa_384 = element(0x30, bytes.fromhex("06082a8648ce3d040303"))
    leaf = changed(LEAF, lambda fields: [*fields[:2], ecdsa_384, *fields[3:]], signer=INTERMEDIATE)
    assert not signed(leaf, INTERMEDIATE)


@pytest.mark.parametrize(("place", "value"), [(0, b"\x01"), (-2, b"\x04")])
def test_a_signature_is_a_bit_string_of_whole_bytes(place, value):
    at = LEAF.certificate.rindex(b"\x00\x30") + place  # two before the number of unused bits stands the tag
    other = ChainCertificate(LEAF.certificate[:at] + value + LEAF.certificate[at + 1 :])
    assert other.facts.common_name == "dev-01"
    assert not other.is_signed_by(loaded(INTERMEDIATE))


def test_pss():
    ca = issue("CA", is_ca=True, key=KEYS["rsa"])
    leaf = issue("dev-02", ca, rsa_padding=padding.PSS(padding.MGF1(hashes.SHA256()), 32))
    assert signed(leaf, ca)
    assert not signed(leaf, issue("CA", is_ca=True, key=fix_pki.rsa_key(1024)))


def test_sha_1():
    ca = issue("CA", is_ca=True, key=KEYS["rsa"])
    assert signed(fix_pki.sha1_signed(issue("dev-02", ca), ca), ca)


class HugeKey:
    """Only its public half, and that is nonsense."""

    def public_key(self):
        return rsa.RSAPublicNumbers(65537, (1 << 16_384) - 1).public_key()


def test_a_huge_key_is_told():
    assert loaded(issue("CA", ROOT, is_ca=True, key=HugeKey())).has_huge_key
    assert not loaded(issue("CA", is_ca=True, key=KEYS["rsa"])).has_huge_key


def test_a_huge_key_is_not_even_tried(monkeypatch):
    ca = issue("CA", is_ca=True, key=KEYS["rsa"])
    leaf = issue("dev-02", ca)
    assert signed(leaf, ca)
    monkeypatch.setattr("muster.pki.chain_certificate._LARGEST_RSA_BITS", 2047)
    assert not signed(leaf, ca)
