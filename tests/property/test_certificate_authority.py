"""Whatever is handed to a CA: a value, or the documented error. Whatever it signs: what OpenSSL and ours take."""

import base64
import string

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.pki.certificate import CertificateFormatError
from muster.pki.certificate_order import make_order, new_serial_number, order_for_request, validity
from muster.pki.certificate_profiles import PROFILES, ProfileError, read_profiles
from muster.pki.certificate_request import (
    CertificateRequest,
    RequestFormatError,
    parse_certificate_request,
    read_certificate_request,
    request_problems,
)
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.issuance import issue
from muster.pki.key_store import KeyStore, KeyStoreError, read_key_store, write_pfx
from muster.pki.names import (
    NameTextError,
    general_name_text,
    read_alternative_name,
    read_constraint,
    read_subject,
)
from muster.pki.private_key import PrivateKeyError, is_private_key, make_key, read_private_key, write_private_key
from muster.pki.problem import AuthorityError
from muster.pki.revocation import (
    REASONS,
    Revocation,
    RevocationListError,
    RevocationLists,
    RevocationStatus,
    parse_revocation_list,
    read_revocation_lists,
    sign_revocation_list,
)
from muster.pki.verify import KnownCertificates, find_chain
from tests.support.fix_ca import DAY, NOW, entropy, intermediate, key, leaf, request, to_der

REQUEST = request(extensions=[x509.SubjectAlternativeName([x509.DNSName("dev-01")])]).public_bytes(Encoding.DER)
LIST = sign_revocation_list(intermediate(), [Revocation(5, NOW, "superseded")], 1, NOW, NOW + DAY)
PFX = write_pfx("dev-01", key("dev-01"), (leaf(), *intermediate().chain), "1234")
PLAIN_KEY = write_private_key(key("dev-01"), pem=False)
SECRET_KEY = write_private_key(key("dev-01"), "1234", pem=False)


def pem_key(content):
    body = base64.b64encode(content).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n".encode()


@st.composite
def damaged(draw, original):
    """Real bytes with some of them changed, and perhaps cut or grown."""
    content = bytearray(original)
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    return bytes(content[:cut]) + draw(st.binary(max_size=2))


def anything(original):
    """Bytes, text, and damage of the original, bare and as base64."""
    broken = damaged(original)
    return st.one_of(st.binary(max_size=300), st.text(max_size=100), broken, broken.map(base64.b64encode))


@given(anything(REQUEST))
@settings(max_examples=120, deadline=None)
def test_any_request_is_read_or_refused(content):
    try:
        found = read_certificate_request(content)
    except RequestFormatError:
        return
    assert isinstance(found, CertificateRequest)
    for profile in PROFILES.values():
        assert all(problem.detail for problem in request_problems(found, profile, "dev-01"))


@given(damaged(REQUEST))
@settings(max_examples=100, deadline=None)
def test_whatever_is_signed_for_a_request_is_a_certificate_of_its_profile(content):
    try:
        found = parse_certificate_request(content)
        name = found.common_name or "dev-01"
        valid = validity(NOW, 30, intermediate().certificate)
        made = issue(order_for_request(found, PROFILES["device"], name, valid, 7), intermediate())
    except (RequestFormatError, AuthorityError):
        return
    assert found.is_signed
    known = KnownCertificates(ChainCertificate(to_der(one)) for one in intermediate().chain)
    assert find_chain([to_der(made)], known, NOW).is_sound


@given(anything(LIST))
@settings(max_examples=120, deadline=None)
def test_any_list_is_read_or_refused(content):
    try:
        (found, *_) = read_revocation_lists(content)
    except RevocationListError:
        return
    own, line = (ChainCertificate(to_der(one)) for one in (leaf(), intermediate().certificate))
    finding = RevocationLists([found]).find(own, line, NOW)
    assert finding.status in (RevocationStatus.UNKNOWN, RevocationStatus.GOOD)


@given(st.dictionaries(st.integers(1, 2**159 - 1), st.sampled_from(REASONS), max_size=20), st.integers(0, 2**63))
def test_a_list_says_what_was_signed(reasons, number):
    revocations = {serial: Revocation(serial, NOW, reason) for serial, reason in reasons.items()}
    content = sign_revocation_list(intermediate(), revocations.values(), number, NOW, NOW + DAY)
    found = parse_revocation_list(content)
    assert (found.revocations, found.number) == (revocations, number)


@given(anything(PFX), st.sampled_from([None, "", "1234", "wrong", "\udc80"]))
@settings(max_examples=120, deadline=None)
def test_any_key_store_is_read_or_refused(content, pass_phrase):
    content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    try:
        found = read_key_store(content, pass_phrase)
    except (KeyStoreError, PrivateKeyError, CertificateFormatError):
        return
    assert isinstance(found, KeyStore)


@given(
    st.one_of(damaged(PLAIN_KEY), damaged(SECRET_KEY), damaged(PLAIN_KEY).map(pem_key), st.binary()),
    st.sampled_from([None, "", "1234"]),
)
@settings(max_examples=120, deadline=None)
def test_any_key_is_read_or_refused(content, pass_phrase):
    try:
        assert is_private_key(read_private_key(content, pass_phrase))
    except PrivateKeyError:
        return


WORDS = st.one_of(st.text(max_size=40), st.text(string.ascii_letters + '=,+;"\\/ .:0', max_size=40))


@given(WORDS)
@settings(max_examples=120)
def test_any_name_is_read_or_refused(text):
    for read in (read_subject, read_alternative_name, read_constraint):
        try:
            read(text)
        except NameTextError:
            continue


@given(st.lists(st.tuples(st.sampled_from(["CN", "O", "OU", "L", "DC"]), st.text(min_size=1, max_size=60)), min_size=1))
def test_a_subject_is_read_as_it_is_written(parts):
    """In double quotes, as .NET writes it."""
    text = ", ".join(f'{kind}="{value.replace(chr(34), 2 * chr(34))}"' for kind, value in parts)
    try:
        found = [attribute.value for attribute in read_subject(text)]
    except NameTextError:
        assert len(text) > 4096 or not all(value.isprintable() for _, value in parts)
        return
    assert found == [value for _, value in reversed(parts)]


@given(st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True))
def test_an_alternative_name_is_written_as_it_is_read(host):
    try:
        found = read_alternative_name(host)
    except NameTextError:
        assert ".." in host
        return
    assert read_alternative_name(general_name_text(found)) == found


@given(st.one_of(st.text(max_size=60), st.text("[]=\"'\n abcdeklysnx_1,", max_size=60)))
@settings(max_examples=100)
def test_any_profiles_are_read_or_refused(text):
    try:
        assert set(PROFILES) <= set(read_profiles(text))
    except ProfileError:
        return


@given(st.binary(min_size=20, max_size=20))
def test_any_serial_number_is_one(octets):
    number = new_serial_number(lambda _: octets)
    assert 0 < number < 2**159


@given(st.integers(), st.integers(1, 7000), st.sampled_from(["ec-p256", "ec-p384", "ec-p521", "ed25519"]))
@settings(max_examples=30, deadline=None)
def test_the_same_seed_gives_the_same_certificate(seed, days, kind):
    def make():
        random_bytes = entropy(seed)
        own = make_key(kind, random_bytes)
        valid = validity(NOW, days, intermediate().certificate)
        serial_number = new_serial_number(random_bytes)
        return issue(make_order(PROFILES["device"], "dev-01", own.public_key(), valid, serial_number), intermediate())

    assert make() == make()
