"""Activation blobs in a real TPM: swtpm, driven with tpm2-tools through the steps of DPS's clients (docs/tpm.md)."""

import base64
import hmac
import secrets
from collections.abc import Iterator

import pytest
from tests.support.fix_tpm import (
    ENDORSEMENT_KEY,
    POLICY,
    STORAGE_ROOT_KEY,
    Swtpm,
    TpmToolError,
    running_swtpm,
    split_blob,
)

from muster.domain.sas import sign
from muster.domain.tpm import TpmKeyFormatError, activation_blob, name_of, parse_storage_key

NONCE = bytes(range(32))
TO_SIGN = b"0ne00DE5EED%2Fregistrations%2Fdev-1\n1900000000"


@pytest.fixture(scope="module")
def tpm() -> Iterator[Swtpm]:
    with running_swtpm() as one:
        yield one


@pytest.fixture(scope="module")
def other() -> Iterator[Swtpm]:
    with running_swtpm() as one:
        yield one


def blob_for(tpm: Swtpm, key: bytes, data: bytes = b"") -> bytes:
    return activation_blob(tpm.endorsement_key, tpm.storage_root_key, key, secrets.token_bytes, data)


def code(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def test_the_keys_are_those_of_the_clients(tpm: Swtpm) -> None:
    # As in every endorsement key that was seen: AToAAQALAAMA..., 316 bytes (dps.md 4.6).
    assert len(tpm.endorsement_key) == 316
    assert tpm.endorsement_key[:9].hex() == "013a0001000b000300"
    endorsement = parse_storage_key(tpm.endorsement_key)
    storage_root = parse_storage_key(tpm.storage_root_key)
    assert (endorsement.policy, endorsement.symmetric_bits, endorsement.exponent) == (POLICY, 128, 65537)
    assert (storage_root.policy, storage_root.symmetric_bits, storage_root.exponent) == (b"", 128, 65537)


@pytest.mark.parametrize("handle", [ENDORSEMENT_KEY, STORAGE_ROOT_KEY])
def test_a_name_is_the_one_that_the_tpm_says(tpm: Swtpm, handle: str) -> None:
    assert name_of(tpm.read_public(handle)) == tpm.read_name(handle)


@pytest.mark.parametrize("length", [1, 16, 32, 64])
def test_the_tpm_signs_with_the_key_of_the_blob(tpm: Swtpm, length: int) -> None:
    key = secrets.token_bytes(length)
    tpm.activate(blob_for(tpm, key))
    assert tpm.sign(TO_SIGN) == code(key, TO_SIGN)
    # More than one buffer of the TPM.
    assert tpm.sign(3000 * b"x") == code(key, 3000 * b"x")


def test_the_key_of_the_hub_takes_the_place_of_the_nonce(tpm: Swtpm) -> None:
    tpm.activate(blob_for(tpm, NONCE))
    assert tpm.sign(TO_SIGN) == code(NONCE, TO_SIGN)
    device_key = secrets.token_bytes(64)
    tpm.activate(blob_for(tpm, device_key))
    assert tpm.sign(TO_SIGN) == code(device_key, TO_SIGN)


def test_what_the_tpm_signs_is_a_sas_signature(tpm: Swtpm) -> None:
    tpm.activate(blob_for(tpm, NONCE))
    key = base64.b64encode(NONCE).decode()
    assert base64.b64encode(tpm.sign(TO_SIGN)).decode() == sign(key, TO_SIGN.decode())


def test_data_is_encrypted_with_the_wrapping_key(tpm: Swtpm) -> None:
    data = b"some 20 bytes of it."
    fields = split_blob(blob_for(tpm, NONCE, data))
    wrapping_key = tpm.activate_credential(fields["credential"] + fields["credential seed"])
    assert tpm.decrypt_data(wrapping_key, fields["data"][2:]) == data


def test_a_blob_for_another_endorsement_key_is_refused(tpm: Swtpm, other: Swtpm) -> None:
    blob = activation_blob(other.endorsement_key, tpm.storage_root_key, NONCE, secrets.token_bytes)
    with pytest.raises(TpmToolError, match="tpm2_activatecredential"):
        tpm.activate(blob)


def test_a_blob_for_another_storage_root_key_is_refused(tpm: Swtpm, other: Swtpm) -> None:
    blob = activation_blob(tpm.endorsement_key, other.storage_root_key, NONCE, secrets.token_bytes)
    with pytest.raises(TpmToolError, match="tpm2_activatecredential"):
        tpm.activate(blob)


def test_the_credential_alone_does_not_import_for_another_storage_root_key(tpm: Swtpm, other: Swtpm) -> None:
    mine = split_blob(blob_for(tpm, NONCE))
    wrapping_key = tpm.activate_credential(mine["credential"] + mine["credential seed"])
    theirs = split_blob(blob_for(other, NONCE))
    with pytest.raises(TpmToolError, match="tpm2_import"):
        tpm.import_key(wrapping_key, theirs["duplicate"], theirs["duplicate seed"], theirs["public"])


@pytest.mark.parametrize(
    ("field", "step"),
    [
        ("credential", "activatecredential"),
        ("credential seed", "activatecredential"),
        ("duplicate", "import"),
        ("duplicate seed", "import"),
        ("public", "import"),
    ],
)
def test_a_changed_blob_is_refused(tpm: Swtpm, field: str, step: str) -> None:
    fields = split_blob(blob_for(tpm, NONCE))
    fields[field] = fields[field][:-1] + bytes([fields[field][-1] ^ 1])
    with pytest.raises(TpmToolError, match=f"tpm2_{step}"):
        tpm.activate(b"".join(fields.values()))


@pytest.fixture
def own_tpm() -> Iterator[Swtpm]:
    """For a test that puts other keys in it."""
    with running_swtpm() as one:
        yield one


def test_stronger_storage_root_keys_work(own_tpm: Swtpm) -> None:
    own_tpm.create_storage_root_key("rsa3072:null:aes256cfb", "sha384")
    key = parse_storage_key(own_tpm.storage_root_key)
    assert (key.name_algorithm, key.symmetric_bits, key.modulus.bit_length()) == ("sha384", 256, 3072)
    own_tpm.activate(blob_for(own_tpm, NONCE))
    assert own_tpm.sign(TO_SIGN) == code(NONCE, TO_SIGN)


def test_an_ecc_key_is_refused_in_words(own_tpm: Swtpm) -> None:
    own_tpm.create_storage_root_key("ecc256:null:aes128cfb")
    with pytest.raises(TpmKeyFormatError, match=r"^the storage root key is an ECC key"):
        blob_for(own_tpm, NONCE)
