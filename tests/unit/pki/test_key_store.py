import pytest
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.serialization import (
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from muster.pki.key_store import KeyStore, KeyStoreError, belongs, is_pfx, read_key_store, write_pfx
from muster.pki.private_key import PassPhraseError, PrivateKeyError, write_private_key
from tests.support import fix_pki
from tests.support.fix_ca import intermediate, key, leaf, openssl, root, to_der, to_pem

CHAIN = (leaf(), *intermediate().chain)
ALL = tuple(map(to_der, CHAIN))


def pfx(pass_phrase="1234"):
    return write_pfx("dev-01", key("dev-01"), CHAIN, pass_phrase)


def test_a_pfx_file_has_key_and_chain():
    found = read_key_store(pfx(), "1234")
    assert found.certificates == ALL
    assert belongs(found.key, ALL[0])
    assert is_pfx(pfx())


def test_openssl_reads_it(tmp_path):
    done = openssl("pkcs12", "-passin", "pass:1234", "-nodes", text=pfx())
    assert done.stdout.count(b"BEGIN CERTIFICATE") == 3
    assert b"friendlyName: dev-01" in done.stdout
    assert read_key_store(done.stdout).certificates == ALL


def test_what_openssl_writes_is_read(tmp_path):
    (tmp_path / "all.pem").write_bytes(write_private_key(key("dev-01")) + to_pem(*CHAIN))
    out = tmp_path / "dev.pfx"
    openssl("pkcs12", "-export", "-in", tmp_path / "all.pem", "-out", out, "-passout", "pass:1234")
    assert read_key_store(out.read_bytes(), "1234").certificates == ALL


def test_pem_with_everything_in_any_order():
    text = to_pem(root().certificate, intermediate().certificate) + write_private_key(key("dev-01")) + to_pem(leaf())
    found = read_key_store(text)
    assert found.certificates == (ALL[0], to_der(root().certificate), to_der(intermediate().certificate))
    assert belongs(found.key, ALL[0])


def test_the_certificates_are_loaded():
    assert read_key_store(to_pem(*CHAIN)).load() == list(CHAIN)


def test_a_certificate_that_only_we_can_read_is_not_loaded():
    broken = fix_pki.changed(fix_pki.self_signed(), lambda fields: [b"\xa0\x03\x02\x01\x07", *fields[1:]])
    with pytest.raises(KeyStoreError, match="cannot be loaded"):
        read_key_store(broken.certificate).load()


def test_an_encrypted_key_in_pem():
    text = to_pem(leaf()) + write_private_key(key("dev-01"), "1234")
    assert read_key_store(text, "1234").key is not None
    with pytest.raises(PassPhraseError, match="needed"):
        read_key_store(text)


def test_certificates_alone():
    assert read_key_store(to_pem(*CHAIN)) == KeyStore(ALL, None)
    assert read_key_store(ALL[0]) == KeyStore(ALL[:1], None)


def test_a_key_of_another_certificate_changes_no_order():
    text = to_pem(*CHAIN) + write_private_key(key("other"))
    assert read_key_store(text).certificates == ALL


def test_a_pfx_file_without_a_key_or_a_main_certificate():
    bare = pkcs12.serialize_key_and_certificates(None, None, None, CHAIN, NoEncryption())
    assert read_key_store(bare) == KeyStore(ALL, None)


@pytest.mark.parametrize(
    ("content", "pass_phrase", "error", "reason"),
    [
        (pfx(), None, PassPhraseError, "needs a pass phrase"),
        (pfx(), "secret guess", PassPhraseError, "is wrong"),
        (pfx()[:-9] + bytes(9), "1234", PassPhraseError, "damaged"),
        (pfx()[:-200], "1234", KeyStoreError, "cut off"),
        (b"", None, KeyStoreError, "empty"),
        (b"\x30\x00", None, KeyStoreError, "not an X.509 certificate"),
        (write_private_key(key("a")), None, KeyStoreError, "no certificate, but PRIVATE KEY"),
        (
            to_pem(leaf()) + b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
            None,
            PrivateKeyError,
            "neither",
        ),
        (
            pkcs12.serialize_key_and_certificates(None, key("a"), None, None, NoEncryption()),
            None,
            KeyStoreError,
            "no cert",
        ),
    ],
)
def test_what_cannot_be_read(content, pass_phrase, error, reason):
    with pytest.raises(error, match=reason) as caught:
        read_key_store(content, pass_phrase)
    assert "secret" not in str(caught.value)


def test_a_key_of_another_kind():
    odd = ed448.Ed448PrivateKey.generate()
    content = pkcs12.serialize_key_and_certificates(None, odd, None, CHAIN, NoEncryption())
    with pytest.raises(KeyStoreError, match="neither RSA"):
        read_key_store(content)


def test_a_key_on_an_unknown_curve(tmp_path):
    name, files = tmp_path / "odd", ("-in", tmp_path / "odd.pem", "-inkey", tmp_path / "odd")
    openssl("ecparam", "-name", "secp112r1", "-genkey", "-noout", "-out", name)
    openssl("req", "-x509", "-new", "-key", name, "-subj", "/CN=odd", "-out", tmp_path / "odd.pem")
    content = openssl("pkcs12", "-export", *files, "-passout", "pass:1234").stdout
    with pytest.raises(KeyStoreError, match="not known here"):
        read_key_store(content, "1234")


def test_older_encryption_is_read():
    old = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2000)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
    )
    content = pkcs12.serialize_key_and_certificates(b"x", key("dev-01"), leaf(), None, old.build(b"1234"))
    assert read_key_store(content, "1234").certificates == ALL[:1]


def test_a_store_does_not_show_its_key():
    assert "Private" not in repr(read_key_store(pfx(), "1234"))


def test_what_is_no_pfx():
    assert not any(map(is_pfx, (b"", b"\x30", ALL[0], b"\x30\x03\x02\x01\x02", to_pem(leaf()))))
    assert not belongs(key("dev-01"), fix_pki.self_signed().certificate)
