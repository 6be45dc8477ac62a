"""Keys of a TPM are read as they are marshalled, and blobs are what the TPM 2.0 Library says: published vectors of each
step, and a second implementation that takes the whole apart.
"""

import base64
import hashlib
import random

import pytest

from muster.domain.tpm import (
    MAXIMUM_DATA,
    StorageKey,
    TpmKeyFormatError,
    activation_blob,
    encrypt_cfb,
    encrypt_secret,
    kdfa,
    name_of,
    parse_storage_key,
    registration_id_of,
)
from tests.support.fix_tpm import (
    FIELDS,
    POLICY,
    SoftwareKey,
    SoftwareTpm,
    private_key,
    sized,
    software_tpm,
    split_blob,
)

# A device's own, from the log in azure-iot-sdk-c issue 271, with the registration id that it computed from it.
ENDORSEMENT_KEY = base64.b64decode(
    "AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEAopqgkUBwtpr1sCgVJcEZxsJtpmtOAt9K7SjG"
    "Fe4hsp6DJ/dd2E5UFzBC+Jp8Fzqf5ukRBkqrAgIuAvHRsruIedk1uarJSLhbDpFLHxFd7iDNcYfrvdgVNT2T9zrvkh2y04WuRQg2D5qf0tZF82jeTjR/"
    "YJK7uWhaRwWOwZ3b1XD9l6wFOrwK/Ic0PEsjneFXQzL0n9uKyuHmHNz+wHppmOiMAabvnXXEin9ou7/iowY/+YhFm3j7atsVvxMI5HEM3Mq+W4imUuzP"
    "xVX7fZH+oWPKP5ofpWBTf+MdttGby1AjGnv8JE69JriOYoZG2/4qbsfv9M7a7NFrBlaW7Rt36w=="
)
REGISTRATION_ID = "6rek5qncnygnkzflohxz4u6zlfly6ktm4klsc7xrbgvesqyllnfa"

# chrisfenner/tpm-test-vectors, 09_2048_SHA256_128_restricted: made with a software TPM's TPM2_Import.
STORAGE_AREA = bytes.fromhex(
    "0001000b000304600000000600800043001008000000000001008054bc2c75a670a0d6372d5d37944609a79e94865c48c16c46e9354912f4aab3"
    "213c2cb204f104329de5a6e21fd459ad7e5e6e9afbbd8ee14d22ebd23821815be7b3e225ffd06c0097b91b0e0d71c27d5eee235ea37ae1d6ff84"
    "ffca71ea9926103ab5da58befeaad5df0de20662cc05096706aeafaaa5b231e6bd0fddbb26c1fa1c9f05861e11525360373789f9e07c96d65f8a"
    "9f3483bb7d95e5286ed66b4ae5588e5ed38ab15d40059b5c7d8d9ef0a67d7ab9e0b923f618e5a2cddad5b644080391196d0214d6d4bef749cb82"
    "28b947ea0a1feb305414e0023ec6022e1b8098f96a53c1e878ddb85a3dc39dbbfc600bffaa34ace17465825ddccd7796dbaf"
)
STORAGE_SALT = bytes.fromhex("45f3b20066316295a445d670aee039cac8a765c4e683ba948d51110aad0bb9ff")
STORAGE_SECRET = bytes.fromhex("f2967d61ba8a08c9f1877f1965868ded9e418057b984b17fcc40f55e00035b00")
STORAGE_CIPHERTEXT = bytes.fromhex(
    "116936814cee006c2acbe000cebdc22afd7a2f5ede9d05b0e88900a2a98cdd09c4841f31e7ffa337d22f6e69b530929a440082d9e4e880dd00b7"
    "630d989f71ac7ac220c2f9bab31950eba8b77cf5e4813223eefe4b5b1b5e952888e3dcddd101320c17d77106c67251e42ca888d585085c3ec43b"
    "0ef6c6aeeb63057d3e345d9f35865ba199e740d4724766f9a2be23f684a9c6f1e3236969f0e1cc58250cd9774656dbec546340245d6501e4267e"
    "194565847f4dc7f2cea86719abfc85b309f3fb1587b089c9d3c7fc928e1bfafe464803bf19424765e04185220f99e1ed004a8dae0d2798a946a1"
    "0886247523d455692fdcf7fcce3f198db30d899e160f0d8b"
)
STORAGE_ROOT_KEY = sized(STORAGE_AREA)

KEY = bytes(range(32))


class Counting:
    """A random source without randomness; it remembers how much it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, length: int) -> bytes:
        self.asked.append(length)
        return hashlib.shake_256(bytes([len(self.asked)])).digest(length)


def source(seed: int = 0):
    return random.Random(seed).randbytes


def changed(public: bytes, start: int, content: str) -> bytes:
    """With other bytes from ``start`` of the public area on, and the size that fits."""
    area = bytearray(public[2:])
    replacement = bytes.fromhex(content)
    area[start : start + len(replacement)] = replacement
    return sized(bytes(area))


def test_the_registration_id_is_the_one_that_the_client_computes() -> None:
    assert registration_id_of(ENDORSEMENT_KEY) == REGISTRATION_ID


def test_an_endorsement_key_is_read() -> None:
    assert parse_storage_key(ENDORSEMENT_KEY) == StorageKey(
        name=b"\0\x0b" + hashlib.sha256(ENDORSEMENT_KEY[2:]).digest(),
        name_algorithm="sha256",
        attributes=0x000300B2,
        policy=POLICY,
        symmetric_bits=128,
        exponent=65537,
        modulus=int.from_bytes(ENDORSEMENT_KEY[-256:], "big"),
    )


def test_a_storage_root_key_is_read() -> None:
    key = parse_storage_key(STORAGE_ROOT_KEY)
    assert (key.attributes, key.policy, key.modulus.bit_length()) == (0x00030460, b"", 2048)


@pytest.mark.parametrize("exponent", [65537, 0x00010003, 0xFFFFFFFF])
def test_an_exponent_may_be_written_out(exponent: int) -> None:
    assert parse_storage_key(changed(STORAGE_ROOT_KEY, 20, f"{exponent:08x}")).exponent == exponent


@pytest.mark.parametrize(
    ("code", "hash_name", "symmetric_bits", "bits"),
    [("000b", "sha256", 128, 4096), ("000c", "sha384", 256, 3072), ("000d", "sha512", 256, 2048)],
)
def test_stronger_keys_are_read(code: str, hash_name: str, symmetric_bits: int, bits: int) -> None:
    head = bytes.fromhex(f"0001{code}0003047200000006{symmetric_bits:04x}00430010{bits:04x}00000000")
    area = head + sized(b"\xff" * (bits // 8))
    assert parse_storage_key(sized(area)) == StorageKey(
        name=bytes.fromhex(code) + hashlib.new(hash_name, area).digest(),
        name_algorithm=hash_name,
        attributes=0x00030472,
        policy=b"",
        symmetric_bits=symmetric_bits,
        exponent=65537,
        modulus=(1 << bits) - 1,
    )


ECC_KEY = sized(bytes.fromhex("0023000b000300b20000000600800043001000030010") + sized(bytes(32)) + sized(bytes(32)))
HMAC_KEY = sized(bytes.fromhex("0008000b0004044000000005000b") + sized(bytes(32)))


@pytest.mark.parametrize(
    ("public", "problem"),
    [
        (b"", "is no TPM2B_PUBLIC: its size says 0 bytes, and 0 follow"),
        (b"\0", "is no TPM2B_PUBLIC: its size says 0 bytes, and 0 follow"),
        (STORAGE_AREA, "is no TPM2B_PUBLIC: its size says 1 bytes, and 280 follow (tpm2_readpublic -f tss"),
        (ENDORSEMENT_KEY[:-1], "is no TPM2B_PUBLIC: its size says 314 bytes, and 313 follow"),
        (ENDORSEMENT_KEY + b"\0", "is no TPM2B_PUBLIC: its size says 314 bytes, and 315 follow"),
        # What old tpm2-tools wrote: the memory of a little-endian machine (azure-iot-sdk-c issue 1502).
        (bytes.fromhex("3a01000001000b00b200030020008371"), "is no TPM2B_PUBLIC: its size says 14849 bytes"),
        (sized(bytes(7)), "is no TPM2B_PUBLIC: its size says 7 bytes, and 7 follow"),
        (ECC_KEY, "is an ECC key; DPS's clients make RSA keys"),
        (HMAC_KEY, "is a keyed-hash key; DPS's"),
        (changed(STORAGE_ROOT_KEY, 0, "0025"), "is a symmetric key; DPS's"),
        (changed(STORAGE_ROOT_KEY, 0, "1234"), "is a type 0x1234 key; DPS's"),
        (changed(STORAGE_ROOT_KEY, 2, "0004"), "has the name algorithm 0x0004; SHA-256, -384 and -512 are taken"),
        (changed(STORAGE_ROOT_KEY, 4, "00020460"), "is no storage key: restricted and decrypt"),
        (changed(STORAGE_ROOT_KEY, 4, "00010460"), "is no storage key: restricted and decrypt"),
        (changed(STORAGE_ROOT_KEY, 4, "00070460"), "is no storage key: restricted and decrypt"),
        (sized(STORAGE_AREA[:8]), "ends in the middle of a field"),
        (sized(STORAGE_AREA[:10]), "ends in the middle of its parameters"),
        (sized(STORAGE_AREA[:23]), "ends in the middle of its parameters"),
        (sized(STORAGE_AREA[:-1]), "ends in the middle of a field"),
        (changed(STORAGE_ROOT_KEY, 8, "ffff"), "ends in the middle of a field"),
        (changed(STORAGE_ROOT_KEY, 10, "0010"), "has another cipher than AES-128 or AES-256 in CFB mode"),
        (changed(STORAGE_ROOT_KEY, 12, "00c0"), "has another cipher than AES-128 or AES-256 in CFB mode"),
        (changed(STORAGE_ROOT_KEY, 14, "0042"), "has another cipher than AES-128 or AES-256 in CFB mode"),
        (changed(STORAGE_ROOT_KEY, 16, "0017"), "has the scheme 0x0017; a storage key has none"),
        (changed(STORAGE_ROOT_KEY, 18, "0400"), "has 1024 bits; 2048, 3072, 4096 are taken"),
        (changed(STORAGE_ROOT_KEY, 20, "00000003"), "has the exponent 3; 0, or an odd number from 65537"),
        (changed(STORAGE_ROOT_KEY, 20, "00010002"), "has the exponent 65538; 0, or an odd number from 65537"),
        (changed(STORAGE_ROOT_KEY, 18, "0c00"), "has no modulus of 3072 bits"),
        (changed(STORAGE_ROOT_KEY, 26, "7f"), "has no modulus of 2048 bits"),
        (changed(STORAGE_ROOT_KEY, 281, "ae"), "has an even modulus"),
        (sized(STORAGE_AREA + b"\0"), "has bytes behind its modulus"),
        (sized(STORAGE_AREA[:24] + sized(b"")), "has no modulus of 2048 bits"),
    ],
)
def test_everything_else_is_refused_with_the_reason(public: bytes, problem: str) -> None:
    with pytest.raises(TpmKeyFormatError) as refusal:
        parse_storage_key(public, "thing")
    assert str(refusal.value).startswith(f"the thing {problem}")


def test_any_object_has_a_name() -> None:
    assert name_of(HMAC_KEY) == b"\0\x0b" + hashlib.sha256(HMAC_KEY[2:]).digest()
    with pytest.raises(TpmKeyFormatError, match=r"^the key is no TPM2B_PUBLIC"):
        name_of(HMAC_KEY[2:])


@pytest.mark.parametrize(
    ("algorithm", "output"),
    [
        ("sha256", "bb0259e1c8ba607e6a2cd704b69a902e9ade84c4"),
        ("sha384", "1dce70c9113eb2dba47bd9cfc72bf46f45b09312"),
        ("sha512", "8be2c1b85b78569b9fa759f5857c56d684810fd3"),
    ],
)
def test_kdfa_gives_what_a_tpm_tests_itself_with(algorithm: str, output: str) -> None:
    # The vectors of the reference implementation's self-test (KdfTestData.h).
    key = bytes.fromhex("271fa08bbdc5060ec3dfa928ff9b73123a12da0c")
    context = bytes.fromhex("ce244f395dca7391 da504031ddf12e83")
    assert kdfa(algorithm, key, b"KDFSELFTESTLABEL", context, 160).hex() == output


def test_kdfa_goes_on_after_one_digest() -> None:
    one, two = (kdfa("sha256", KEY, b"STORAGE", b"name", bits) for bits in (256, 512))
    # The length is part of what is hashed.
    assert (len(one), len(two)) == (32, 64)
    assert two[:32] not in (one, two[32:])


def test_a_secret_is_encrypted_as_in_the_published_vector() -> None:
    key = parse_storage_key(STORAGE_ROOT_KEY)
    assert encrypt_secret(key, b"DUPLICATE\0", STORAGE_SECRET, STORAGE_SALT) == STORAGE_CIPHERTEXT


@pytest.mark.parametrize(
    ("key", "encrypted"),
    [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b26751f67a3cbb140",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "dc7e84bfda79164b7ecd8486985d386039ffed143b28b1c832113c6331e5407bdf10132415e54b92",
        ),
    ],
    ids=["aes-128", "aes-256"],
)
def test_cfb_gives_the_vectors_of_nist(key: str, encrypted: str) -> None:
    # SP 800-38A, F.3.13 and F.3.17. Ours has the vector 0; a block in front, which encrypts to NIST's, makes up for it.
    secret = bytes.fromhex(key)
    vector = bytes(range(16))
    clear = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411")
    first = encrypt_cfb(secret, vector)
    for length in (40, 32, 31, 17, 1, 0):
        assert encrypt_cfb(secret, first + clear[:length]) == vector + bytes.fromhex(encrypted)[:length]


def test_a_blob_has_the_form_of_the_real_service() -> None:
    counting = Counting()
    blob = activation_blob(ENDORSEMENT_KEY, STORAGE_ROOT_KEY, KEY, counting, b"x" * 154)
    fields = split_blob(blob)
    # A nonce of the real service, in the comments of the Java SDK's RegisterResponseTPMParser.
    assert [len(field) - 2 for field in fields.values()] == [52, 256, 142, 256, 48, 154]
    assert fields["credential"][2:4] == fields["duplicate"][2:4] == b"\0\x20"
    assert fields["public"][2:18].hex() == "0008000b0004044000000005000b0020"
    assert counting.asked == [16, 32, 32, 32, 32, 32]


def test_a_blob_depends_on_nothing_but_its_arguments() -> None:
    blob = activation_blob(ENDORSEMENT_KEY, STORAGE_ROOT_KEY, KEY, Counting())
    assert hashlib.sha256(blob).hexdigest() == "1912fe91086f391e7c94e462106d32eef06f09778213f5ef1f51bb03f4d7f66d"


@pytest.mark.parametrize("length", [1, 16, 32, 64])
def test_the_tpm_gets_the_key_and_the_data(length: int) -> None:
    tpm = software_tpm()
    key = bytes(range(length))
    blob = activation_blob(tpm.endorsement_key, tpm.storage_root_key, key, source(), b"data")
    assert tpm.activate(blob) == (key, b"data")


@pytest.mark.parametrize("endorsement", [("sha256", 128), ("sha384", 256), ("sha512", 256)])
@pytest.mark.parametrize("storage_root", [("sha256", 128), ("sha384", 256), ("sha512", 256)])
def test_each_key_is_used_with_its_own_algorithms(endorsement: tuple[str, int], storage_root: tuple[str, int]) -> None:
    tpm = SoftwareTpm(SoftwareKey(private_key(0), *endorsement), SoftwareKey(private_key(1), *storage_root))
    blob = activation_blob(tpm.endorsement_key, tpm.storage_root_key, KEY, source(), bytes(MAXIMUM_DATA))
    assert tpm.activate(blob) == (KEY, bytes(MAXIMUM_DATA))


def test_another_tpm_gets_nothing() -> None:
    tpm, other = software_tpm(), software_tpm(1)
    blob = activation_blob(tpm.endorsement_key, tpm.storage_root_key, KEY, source())
    for thief in (
        other,
        SoftwareTpm(other.endorsement, tpm.storage_root),
        SoftwareTpm(tpm.endorsement, other.storage_root),
    ):
        with pytest.raises(ValueError, match=r"integrity|decrypt|Decrypt"):
            thief.activate(blob)


@pytest.mark.parametrize("field", FIELDS[:-1])
def test_a_changed_blob_is_worth_nothing(field: str) -> None:
    tpm = software_tpm()
    fields = split_blob(activation_blob(tpm.endorsement_key, tpm.storage_root_key, KEY, source()))
    fields[field] = fields[field][:-1] + bytes([fields[field][-1] ^ 1])
    with pytest.raises(ValueError, match=r"integrity|decrypt|Decrypt"):
        tpm.activate(b"".join(fields.values()))


@pytest.mark.parametrize("length", [0, 65])
def test_a_key_has_a_length_that_a_tpm_takes(length: int) -> None:
    with pytest.raises(ValueError, match=rf"^an HMAC key has 1 to 64 bytes, not {length}$"):
        activation_blob(ENDORSEMENT_KEY, STORAGE_ROOT_KEY, bytes(length), source())


def test_data_has_a_limit() -> None:
    with pytest.raises(ValueError, match=r"^1024 bytes of data fit, not 1025$"):
        activation_blob(ENDORSEMENT_KEY, STORAGE_ROOT_KEY, KEY, source(), bytes(1025))


def test_the_error_names_the_key_that_cannot_be_used() -> None:
    with pytest.raises(TpmKeyFormatError, match=r"^the endorsement key is an ECC key"):
        activation_blob(ECC_KEY, STORAGE_ROOT_KEY, KEY, source())
    with pytest.raises(TpmKeyFormatError, match=r"^the storage root key is an ECC key"):
        activation_blob(ENDORSEMENT_KEY, ECC_KEY, KEY, source())
