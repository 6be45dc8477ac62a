import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from muster.pki.private_key import (
    KEY_KIND_NOTES,
    KEY_KINDS,
    PassPhraseError,
    PrivateKeyError,
    is_private_key,
    is_public_key,
    make_key,
    pass_phrase_bytes,
    public_key_info,
    public_key_problem,
    read_private_key,
    signature_hash,
    signs_deterministically,
    write_private_key,
)
from tests.support.fix_ca import entropy, key, openssl
from tests.support.fix_pki import rsa_key

ODD = ed448.Ed448PrivateKey.generate()


def same(one, other):
    return public_key_info(one.public_key()) == public_key_info(other.public_key())


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_every_kind_is_made_written_and_read(kind):
    made = rsa_key(2048) if kind.startswith("rsa") else make_key(kind, entropy())
    assert public_key_problem(made.public_key()) is None
    assert is_private_key(made)
    assert is_public_key(made.public_key())
    for pass_phrase in (None, "prästgård"):
        for pem in (True, False):
            written = write_private_key(made, pass_phrase, pem=pem)
            assert same(read_private_key(written, pass_phrase), made)


def test_the_kinds_are_what_their_names_say():
    assert [make_key(f"ec-p{size}", entropy()).curve.key_size for size in (256, 384, 521)] == [256, 384, 521]
    assert isinstance(make_key("ed25519", entropy()), ed25519.Ed25519PrivateKey)
    made = make_key("rsa-2048", entropy())  # the larger ones take seconds
    assert (made.key_size, made.public_key().public_numbers().e) == (2048, 65537)
    assert set(KEY_KIND_NOTES) <= set(KEY_KINDS)


def test_an_unknown_kind_is_refused():
    with pytest.raises(PrivateKeyError, match="take one of rsa-2048, "):
        make_key("rsa-1024", entropy())


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "ec-p521", "ed25519"])
def test_the_same_randomness_gives_the_same_key(kind):
    assert same(make_key(kind, entropy(1)), make_key(kind, entropy(1)))
    assert not same(make_key(kind, entropy(1)), make_key(kind, entropy(2)))


@pytest.mark.parametrize("octet", [0x00, 0xFF])
def test_every_randomness_gives_a_key(octet):
    made = make_key("ec-p256", lambda count: bytes([octet]) * count)
    assert 0 < made.private_numbers().private_value < ec.SECP256R1.group_order


@pytest.mark.parametrize(
    ("weak", "reason"),
    [
        (rsa_key(1024).public_key(), "RSA with 1024 bits; 2048 to 8192"),
        (rsa.RSAPublicNumbers(3, rsa_key(2048).public_key().public_numbers().n).public_key(), "public exponent 3"),
        (ec.generate_private_key(ec.SECP256K1()).public_key(), "on the curve secp256k1"),
        (ODD.public_key(), "neither RSA"),
        (None, "neither RSA"),
    ],
)
def test_why_a_key_is_not_certified(weak, reason):
    assert reason in public_key_problem(weak)


def test_a_huge_rsa_key_is_not_certified():
    modulus = (1 << 8200) + 1
    assert "RSA with 8201 bits" in public_key_problem(rsa.RSAPublicNumbers(65537, modulus).public_key())


def test_hashes_by_key():
    kinds = ("ec-p256", "ec-p384", "ec-p521")
    assert [type(signature_hash(key("a", kind))) for kind in kinds] == [SHA256, SHA384, SHA512]
    assert isinstance(signature_hash(rsa_key(2048)), SHA256)
    assert signature_hash(key("a", "ed25519")) is None


def test_only_ec_keys_have_to_be_told_to_be_deterministic():
    assert [signs_deterministically(one) for one in (key("a"), key("a", "ed25519"), rsa_key(2048))] == [
        True,
        None,
        None,
    ]


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
@pytest.mark.parametrize("pass_phrase", [None, b"1234"])
def test_older_forms_and_other_text_around_are_read(form, pass_phrase):
    encryption = NoEncryption() if pass_phrase is None else BestAvailableEncryption(pass_phrase)
    for made in (key("a"), rsa_key(2048)):
        text = b"Bag Attributes\n" + made.private_bytes(Encoding.PEM, form, encryption) + b"more\n"
        assert same(read_private_key(text, "1234"), made)


def test_what_openssl_writes_is_read(tmp_path):
    """With the curve's parameters in front, as ``openssl ecparam -genkey`` does."""
    text = openssl("ecparam", "-name", "prime256v1", "-genkey").stdout
    assert text.startswith(b"-----BEGIN EC PARAMETERS-----")
    assert read_private_key(text).curve.name == "secp256r1"


def test_a_curve_that_is_not_known():
    with pytest.raises(PrivateKeyError, match="of a kind that is not known here"):
        read_private_key(openssl("ecparam", "-name", "secp112r1", "-genkey", "-noout").stdout)


def test_openssl_reads_what_is_written(tmp_path):
    done = openssl("pkey", "-passin", "pass:1234", "-noout", "-check", text=write_private_key(key("a"), "1234"))
    assert b"Key is valid" in done.stdout


def test_a_pass_phrase_that_is_missing_or_wrong():
    encrypted = write_private_key(key("a"), "right")
    with pytest.raises(PassPhraseError, match="a pass phrase is needed"):
        read_private_key(encrypted)
    with pytest.raises(PassPhraseError, match="wrong") as caught:
        read_private_key(encrypted, "secret guess")
    assert "secret guess" not in str(caught.value)
    for unusable in ("", "é" * 512):
        with pytest.raises(PassPhraseError, match="1 to 1023 bytes"):
            read_private_key(encrypted, unusable)


def test_a_pass_phrase_that_is_not_needed_is_not_looked_at():
    assert same(read_private_key(write_private_key(key("a")), ""), key("a"))


@pytest.mark.parametrize("pass_phrase", ["", "x" * 1024, "\udce9"])
def test_pass_phrases_that_nothing_can_be_encrypted_with(pass_phrase):
    with pytest.raises(PassPhraseError):
        write_private_key(key("a"), pass_phrase)


def test_a_pass_phrase_is_utf_8():
    assert pass_phrase_bytes("é") == b"\xc3\xa9"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither as PEM nor as DER"),
        (b"\x30\x03\x02\x01\x00", "neither as PEM nor as DER"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "neither as PEM nor as DER"),
        (b"  -----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "there is no private key in it"),
        (ODD.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "neither RSA, nor EC, nor Ed25519"),
    ],
)
def test_what_is_no_private_key(content, reason):
    with pytest.raises(PrivateKeyError, match=reason):
        read_private_key(content)
