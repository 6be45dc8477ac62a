"""Whatever a person or a device sends: a key, or the documented error; and a blob gives back what was put in."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from muster.domain.tpm import (
    MAXIMUM_HMAC_KEY,
    TpmKeyFormatError,
    activation_blob,
    name_of,
    parse_storage_key,
    registration_id_of,
)
from tests.support.fix_tpm import sized, software_tpm, split_blob

TPM = software_tpm()
GOOD = [TPM.endorsement_key, TPM.storage_root_key]


@st.composite
def damaged(draw):
    """A real key with some of its bytes changed, perhaps cut or grown, with the size that it then has."""
    area = bytearray(draw(st.sampled_from(GOOD))[2:])
    # Most of a key is its modulus, of which every byte is as good as another.
    for place in draw(st.lists(st.one_of(st.integers(0, 60), st.integers(0, len(area) - 1)), max_size=4)):
        area[place] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(area)), st.integers(0, len(area))))
    return sized(bytes(area[:cut]) + draw(st.binary(max_size=2)))


ANYTHING = st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(sized), damaged())


@given(ANYTHING)
def test_any_bytes_are_a_key_or_the_documented_error(content: bytes) -> None:
    with contextlib.suppress(TpmKeyFormatError):
        key = parse_storage_key(content)
        assert key.name == name_of(content)
        assert key.modulus.bit_length() in (2048, 3072, 4096)
        assert sized(content[2:]) == content


@given(ANYTHING)
def test_any_bytes_have_a_name_or_the_documented_error(content: bytes) -> None:
    with contextlib.suppress(TpmKeyFormatError):
        assert len(name_of(content)) in (34, 50, 66)


@given(ANYTHING)
def test_any_bytes_make_a_legal_registration_id(content: bytes) -> None:
    registration_id = registration_id_of(content)
    assert len(registration_id) == 52
    assert set(registration_id) <= set("abcdefghijklmnopqrstuvwxyz234567")


@given(ANYTHING, ANYTHING, st.randoms(use_true_random=False))
def test_any_two_keys_make_a_blob_or_the_documented_error(endorsement_key, storage_root_key, source) -> None:
    with contextlib.suppress(TpmKeyFormatError):
        split_blob(activation_blob(endorsement_key, storage_root_key, b"key", source.randbytes))


@given(st.binary(min_size=1, max_size=MAXIMUM_HMAC_KEY), st.binary(max_size=100), st.randoms(use_true_random=False))
def test_a_blob_gives_back_what_was_put_in(key: bytes, data: bytes, source) -> None:
    blob = activation_blob(TPM.endorsement_key, TPM.storage_root_key, key, source.randbytes, data)
    assert TPM.activate(blob) == (key, data)
