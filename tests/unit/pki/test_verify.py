import itertools

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from muster.pki.certificate import CertificateFormatError
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.verify import (
    MAXIMUM_DEPTH,
    MAXIMUM_PRESENTED,
    ChainEnd,
    KnownCertificates,
    _client_verifier,
    find_chain,
)
from tests.support import fix_pki
from tests.support.chain_oracles import client_verifier_verdict, openssl_verdict
from tests.support.fix_pki import DAY, NOW, changed, element, issue

ROOT, INTERMEDIATE, LEAF = fix_pki.root(), fix_pki.intermediate(), fix_pki.chain_leaf()
OTHER_ROOT = issue("Other Root", is_ca=True)


def der(*identities):
    return [identity.certificate for identity in identities]


def known(*trusted, others=()):
    return KnownCertificates(map(ChainCertificate, der(*trusted)), map(ChainCertificate, der(*others)))


def find(*presented, trusted=(ROOT,), others=(), wanted=None, now=NOW):
    wanted = None if wanted is None else set(der(*wanted))
    return find_chain(der(*presented), known(*trusted, others=others), now, wanted)


def names(chain):
    return [link.certificate.facts.common_name for link in chain.links]


ALL = ["dev-01", "Line A Intermediate", "Plant Root"]


# --- Ways up ------------------------------------------------------------------------------------------------


def test_a_chain_ends_at_the_trusted_certificate_that_was_not_sent():
    chain = find(LEAF, INTERMEDIATE)
    assert names(chain) == ALL
    assert chain.end is ChainEnd.TRUSTED
    assert chain.is_sound
    assert [(link.sent, link.trusted) for link in chain.links] == [(True, False), (True, False), (False, True)]
    assert chain.signing is None


def test_a_chain_ends_at_the_nearest_trusted_certificate():
    chain = find(LEAF, INTERMEDIATE, ROOT, trusted=(ROOT, INTERMEDIATE))
    assert names(chain) == ALL[:2]
    assert chain.is_sound


def test_an_intermediate_may_be_trusted_alone():
    assert find(LEAF, trusted=(INTERMEDIATE,)).is_sound


@pytest.mark.parametrize("order", list(itertools.permutations([INTERMEDIATE, ROOT, OTHER_ROOT, LEAF])))
def test_the_order_behind_the_first_does_not_count(order):
    assert names(find(LEAF, *order)) == ALL


def test_what_cannot_be_read_is_passed_over():
    chain = find_chain([LEAF.certificate, b"garbage", INTERMEDIATE.certificate], known(ROOT), NOW)
    assert chain.is_sound
    assert [one is None for one in chain.presented] == [False, True, False]


def test_a_device_certificate_that_cannot_be_read():
    with pytest.raises(CertificateFormatError):
        find_chain([b"garbage", LEAF.certificate], known(ROOT), NOW)


@pytest.mark.parametrize("wanted", [INTERMEDIATE, ROOT])
def test_a_wanted_certificate_is_found(wanted):
    chain = find(LEAF, INTERMEDIATE, wanted=[wanted])
    assert chain.is_sound
    assert chain.links[chain.signing].certificate.der == wanted.certificate


def test_of_two_wanted_certificates_the_one_nearest_to_the_device_counts():
    chain = find(LEAF, INTERMEDIATE, trusted=(ROOT, INTERMEDIATE), wanted=[ROOT, INTERMEDIATE])
    assert names(chain) == ALL[:2]
    assert chain.signing == 1


def test_a_wanted_certificate_is_sought_above_a_trusted_one():
    chain = find(LEAF, trusted=(ROOT, INTERMEDIATE), wanted=[ROOT])
    assert names(chain) == ALL
    assert chain.signing == 2
    assert chain.is_sound


def test_above_a_wanted_certificate_that_is_trusted_nothing_counts():
    old = issue("Old Root", is_ca=True, not_after=NOW - DAY, not_before=NOW - 3 * DAY)
    middle = issue("Middle", old, is_ca=True)
    chain = find(issue("dev", middle), middle, old, trusted=(middle,), wanted=[middle])
    assert names(chain) == ["dev", "Middle"]
    assert chain.is_sound


def test_a_wanted_certificate_that_is_not_there():
    chain = find(LEAF, INTERMEDIATE, wanted=[OTHER_ROOT])
    assert chain.signing is None
    assert chain.is_sound
    assert names(chain) == ALL


def test_the_device_s_own_certificate_is_not_the_wanted_one():
    assert find(LEAF, INTERMEDIATE, wanted=[LEAF]).signing is None


def test_nothing_trusted_is_above_the_wanted_certificate():
    chain = find(LEAF, INTERMEDIATE, trusted=(OTHER_ROOT,), wanted=[INTERMEDIATE])
    assert chain.signing == 1
    assert chain.end is ChainEnd.ISSUER_MISSING
    assert not chain.is_sound


# --- Ends ---------------------------------------------------------------------------------------------------


def test_an_issuer_that_was_not_sent():
    chain = find(LEAF)
    assert names(chain) == ["dev-01"]
    assert chain.end is ChainEnd.ISSUER_MISSING
    assert not chain.is_sound


def test_a_root_that_is_not_trusted():
    chain = find(LEAF, INTERMEDIATE, ROOT, trusted=(OTHER_ROOT,))
    assert names(chain) == ALL
    assert chain.end is ChainEnd.UNTRUSTED


def test_a_self_signed_certificate_even_if_it_is_trusted_itself():
    for one in (fix_pki.self_signed(), ROOT):
        chain = find(one, trusted=(ROOT,))
        assert len(chain.links) == 1
        assert chain.end is ChainEnd.UNTRUSTED


def test_what_is_known_but_not_trusted_explains():
    chain = find(LEAF, others=(INTERMEDIATE,))
    assert names(chain) == ALL
    assert chain.end is ChainEnd.TRUSTED
    assert not chain.is_sound
    assert [link.is_usable for link in chain.links] == [True, False, True]


def test_a_namesake_with_another_key():
    namesake = issue("Line A Intermediate", ROOT, is_ca=True, key=fix_pki.ec_key("other"))
    chain = find(LEAF, namesake)
    assert chain.end is ChainEnd.SIGNATURE_WRONG
    assert [one.der for one in chain.suspects] == [namesake.certificate]
    assert names(chain) == ["dev-01"]


@pytest.mark.parametrize("named", [True, False])
def test_of_two_namesakes_the_one_that_signed_is_taken(named):
    namesake = issue("Line A Intermediate", ROOT, is_ca=True, key=fix_pki.ec_key("other"))
    leaf = issue("dev-01", INTERMEDIATE, names_issuer_key=named)
    for sent in ((namesake, INTERMEDIATE), (INTERMEDIATE, namesake)):
        chain = find(leaf, *sent)
        assert chain.is_sound
        assert chain.links[1].certificate.der == INTERMEDIATE.certificate


def test_the_key_identifier_tells_which_of_many_namesakes_it_is():
    many = [issue("same", is_ca=True, serial_number=number) for number in range(1, 60)]
    right = issue("same", is_ca=True, key=fix_pki.ec_key("another"))
    chain = find(issue("dev", right, names_issuer_key=True), trusted=[*many, right])
    assert chain.is_sound
    assert chain.links[1].certificate.der == right.certificate


@pytest.mark.parametrize("wrong", [{"is_ca": False}, {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}])
def test_of_two_certificates_of_one_ca_the_one_that_may_issue_now_is_taken(wrong):
    right = issue("middle", ROOT, is_ca=True)
    other = issue("middle", ROOT, **{"is_ca": True, **wrong})
    leaf = issue("dev", right)
    for sent in ((right, other), (other, right)):
        assert find(leaf, *sent).is_sound


def test_a_namesake_that_was_not_sent_is_not_suspected():
    namesake = issue("Line A Intermediate", ROOT, is_ca=True, key=fix_pki.ec_key("other"))
    chain = find(LEAF, others=(namesake,))
    assert chain.end is ChainEnd.ISSUER_MISSING
    assert chain.suspects == ()


def test_an_issuer_whose_name_is_encoded_in_another_way():
    certificate = INTERMEDIATE.certificate.replace(b"\x0c\x13Line A Intermediate", b"\x13\x13Line A Intermediate")
    chain = find_chain([LEAF.certificate, certificate], known(ROOT), NOW)
    assert chain.end is ChainEnd.ISSUER_MISSING
    assert [one.der for one in chain.suspects] == [certificate]


def tower(height):
    """A root, and so many intermediates one above the other, nearest to the root first."""
    floors = [ROOT]
    for number in range(height):
        floors.append(issue(f"floor {number}", floors[-1], is_ca=True))
    return floors


def test_a_chain_of_the_greatest_depth():
    floors = tower(MAXIMUM_DEPTH - 1)
    chain = find(issue("dev", floors[-1]), *reversed(floors))
    assert chain.is_sound
    assert len(chain.links) == MAXIMUM_DEPTH + 1


def test_a_chain_that_is_too_long():
    floors = tower(MAXIMUM_DEPTH)
    chain = find(issue("dev", floors[-1]), *reversed(floors))
    assert chain.end is ChainEnd.TOO_LONG
    assert not chain.is_sound


def test_no_more_than_the_first_certificates_are_looked_at():
    fillers = [OTHER_ROOT] * (MAXIMUM_PRESENTED - 2)
    assert find(LEAF, *fillers, INTERMEDIATE).is_sound
    chain = find(LEAF, *fillers, OTHER_ROOT, INTERMEDIATE)
    assert chain.end is ChainEnd.ISSUER_MISSING
    assert len(chain.presented) == MAXIMUM_PRESENTED


# --- Hostile chains -----------------------------------------------------------------------------------------


def test_cross_signed_certificates_do_not_multiply_the_work(monkeypatch):
    same = [issue("same", is_ca=True, key=fix_pki.ec_key("same"), serial_number=number) for number in range(1, 10)]
    tried = []
    original = ChainCertificate.is_signed_by
    monkeypatch.setattr(ChainCertificate, "is_signed_by", lambda one, other: tried.append(1) or original(one, other))
    chain = find(issue("dev", same[0]), *same)
    assert chain.end is ChainEnd.UNTRUSTED
    assert len(tried) <= 9


def test_a_usual_chain_is_looked_at_once(monkeypatch):
    monkeypatch.setattr(ChainCertificate, "is_signed_by", lambda *_: pytest.fail("ClientVerifier was enough"))
    assert find(LEAF, INTERMEDIATE, wanted=[ROOT]).is_sound


def test_many_namesakes_end_the_search():
    known_ones = [issue("same", is_ca=True, serial_number=number) for number in range(1, 60)]
    leaf = issue("dev", issue("same", is_ca=True, key=fix_pki.ec_key("another")))
    chain = find(leaf, trusted=known_ones)
    assert chain.end is ChainEnd.TOO_MUCH_WORK
    assert not chain.is_sound


def test_a_certificate_that_only_has_the_right_name_is_not_slipped_in_between():
    # The old and the new certificate of a root have one name; the device's intermediate is signed by the new key.
    old = issue("Plant Root", is_ca=True, key=fix_pki.ec_key("old root"))
    chain = find(LEAF, INTERMEDIATE, old, trusted=(ROOT,), wanted=[old])
    assert chain.signing is None
    assert names(chain) == ALL
    assert chain.links[-1].certificate.der == ROOT.certificate


def test_a_renewed_root_of_the_same_key_leads_on():
    old = issue("Plant Root", is_ca=True, key=ROOT.key, not_before=NOW - 9 * DAY)
    chain = find(LEAF, INTERMEDIATE, old, trusted=(ROOT,), wanted=[old])
    assert chain.signing == 2
    assert chain.is_sound
    assert len(chain.links) == 4


# --- Faults -------------------------------------------------------------------------------------------------


def faults(chain):
    """By common name, which of the facts say that something is wrong."""
    found = {}
    for at, link in enumerate(chain.links):
        wrong = [
            name
            for name, right in (
                ("usable", link.is_usable),
                ("dates", link.in_dates),
                ("ca", link.may_issue or at == 0),
                ("path length", link.path_length_kept),
                ("name", not link.excluded_name),
                ("extension", not link.certificate.extension_problem),
            )
            if not right
        ]
        if wrong:
            found[link.certificate.facts.common_name] = wrong
    assert chain.is_sound is (not found and chain.end is ChainEnd.TRUSTED and not chain.refusal)
    return found


def judged(*path, now=NOW):
    """The faults in a complete chain: the device's certificate, its issuers, and the trusted one."""
    chain = find(*path[:-1], trusted=path[-1:], now=now)
    assert names(chain) == [ChainCertificate(one).facts.common_name for one in der(*path)]
    assert chain.end is ChainEnd.TRUSTED
    assert not chain.refusal
    accepted = openssl_verdict(path[0].certificate, der(*path[1:-1]), der(path[-1]), now) == ""
    found = faults(chain)
    assert accepted is (not found)
    return found


def test_no_fault():
    assert judged(LEAF, INTERMEDIATE, ROOT) == {}


OLD = {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}
NEW = {"not_before": NOW + DAY}


@pytest.mark.parametrize("dates", [OLD, NEW])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_dates_count_everywhere(dates, place):
    options = [dates if place == at else {} for at in range(3)]
    root = issue("root", is_ca=True, **options[2])
    middle = issue("middle", root, is_ca=True, **options[1])
    leaf = issue("leaf", middle, **options[0])
    assert judged(leaf, middle, root) == {["leaf", "middle", "root"][place]: ["dates"]}


def test_the_time_is_an_argument():
    assert judged(LEAF, INTERMEDIATE, ROOT, now=NOW + 366 * DAY) == {name: ["dates"] for name in ALL}


@pytest.mark.parametrize("is_ca", [False, None])
def test_an_issuer_that_is_no_ca(is_ca):
    middle = issue("middle", ROOT, is_ca=is_ca)
    assert judged(issue("leaf", middle), middle, ROOT) == {"middle": ["ca"]}


def test_a_trusted_certificate_that_is_no_ca():
    middle = issue("middle", is_ca=False)
    assert judged(issue("leaf", middle), middle) == {"middle": ["ca"]}


def test_a_device_that_is_a_ca_is_not_judged_here():
    assert judged(issue("leaf", INTERMEDIATE, is_ca=True), INTERMEDIATE, ROOT) == {}


def test_path_lengths():
    root = issue("root", is_ca=True, path_length=1)
    upper = issue("upper", root, is_ca=True, path_length=0)
    assert judged(issue("leaf", upper), upper, root) == {}
    lower = issue("lower", upper, is_ca=True)
    assert judged(issue("leaf", lower), lower, upper, root) == {"upper": ["path length"], "root": ["path length"]}


def test_a_self_issued_ca_does_not_count_for_the_path_length():
    root = issue("root", is_ca=True, path_length=0)
    rolled = issue("root", root, is_ca=True, key=fix_pki.ec_key("new key of root"), names_issuer_key=True)
    assert judged(issue("leaf", rolled, names_issuer_key=True), rolled, root) == {}


def constrained(common_name, issuer, *permitted, **options):
    return issue(common_name, issuer, is_ca=True, extensions=[(x509.NameConstraints(permitted, None), True)], **options)


def named(common_name, issuer, *alternative_names):
    names = x509.SubjectAlternativeName(alternative_names)
    return issue(common_name, issuer, extensions=[(names, False)])


def test_name_constraints_reach_over_several_links():
    root = constrained("root", None, x509.DNSName("plant.example"))
    middle = issue("middle", root, is_ca=True)
    good, bad = named("leaf", middle, x509.DNSName("a.plant.example")), named("leaf", middle, x509.DNSName("elsewhere"))
    assert judged(good, middle, root) == {}
    assert judged(bad, middle, root) == {"leaf": ["name"]}
    assert find(bad, middle, trusted=(root,)).links[0].excluded_name == "elsewhere"


def test_name_constraints_spare_a_self_issued_ca():
    names = x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")]))
    root = constrained("root", None, names)
    rolled = issue("root", root, is_ca=True, key=fix_pki.ec_key("new key of root"), names_issuer_key=True)
    assert judged(issue("leaf", rolled, names_issuer_key=True), rolled, root) == {}
    assert judged(issue("other", rolled, names_issuer_key=True), rolled, root) == {"other": ["name"]}


def test_name_constraints_do_not_spare_a_self_issued_device():
    names = x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")]))
    root = constrained("root", None, names)
    device = issue("root", root, key=fix_pki.ec_key("device"), names_issuer_key=True)
    chain = find(device, trusted=(root,))
    assert [bool(link.excluded_name) for link in chain.links] == [True, False]
    assert not chain.is_sound


def test_name_constraints_that_cannot_be_read_allow_nothing():
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.30"), b"\x05")
    root = issue("root", is_ca=True, extensions=[(broken, True)])
    assert judged(issue("leaf", root), root) == {"leaf": ["name"]}


def test_names_that_cannot_be_read_are_not_allowed():
    root = constrained("root", None, x509.DNSName("plant.example"))
    chain = find(odd_subject(issue("leaf", root), root), trusted=(root,))
    assert chain.links[0].excluded_name == "names that cannot be judged"
    assert not chain.is_sound


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_critical_extension_that_is_not_known(place):
    critical = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]
    extensions = [critical if place == at else [] for at in range(3)]
    root = issue("root", is_ca=True, extensions=extensions[2])
    middle = issue("middle", root, is_ca=True, extensions=extensions[1])
    leaf = issue("leaf", middle, extensions=extensions[0])
    assert judged(leaf, middle, root) == {["leaf", "middle", "root"][place]: ["extension"]}


# --- What ClientVerifier does not take, and what it objects to -------------------------------------------------


def field(at, value):
    return lambda fields: [*fields[:at], value(fields[at]) if callable(value) else value, *fields[at + 1 :]]


ODD_NAME = element(0x30, element(0x31, element(0x30, b"\x06\x03\x55\x04\x03" + element(0x13, b"odd_name"))))


def odd_subject(identity, signer):
    return changed(identity, field(5, ODD_NAME), signer=signer)


def generalized_dates(validity):
    times = validity[2:]
    return element(0x30, b"".join(element(0x18, b"20" + times[at + 2 : at + 15]) for at in (0, 15)))


def policies(critical):
    information = x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.4"), None)
    return [(x509.CertificatePolicies([information]), critical)]


SMALL_CA = issue("CA", is_ca=True, key=fix_pki.rsa_key(1024))
RSA_CA = issue("CA", is_ca=True, key=fix_pki.rsa_key(2048))
EDWARDS_CA = issue("CA", is_ca=True, key=ed25519.Ed25519PrivateKey.generate())
BRAINPOOL_CA = issue("CA", is_ca=True, key=ec.generate_private_key(ec.BrainpoolP256R1()))
URI_CA = constrained("CA", None, x509.UniformResourceIdentifier("plant.example"))

UNFAMILIAR = {
    "version 1": (fix_pki.version_1("leaf", INTERMEDIATE), INTERMEDIATE),
    "explicit version 1": (changed(issue("leaf", ROOT), field(0, b"\xa0\x03\x02\x01\x00"), ROOT), ROOT),
    "odd name": (odd_subject(issue("leaf", ROOT), ROOT), ROOT),
    "padded serial number": (changed(issue("leaf", ROOT), field(1, b"\x02\x02\x00\x01"), ROOT), ROOT),
    "negative serial number": (changed(issue("leaf", ROOT), field(1, b"\x02\x01\x80"), ROOT), ROOT),
    "GeneralizedTime": (changed(issue("leaf", ROOT), field(4, generalized_dates), ROOT), ROOT),
    "small RSA key": (issue("leaf", SMALL_CA), SMALL_CA),
    "critical policies": (issue("leaf", ROOT, extensions=policies(critical=True)), ROOT),
    "URI limits": (named("leaf", URI_CA, x509.UniformResourceIdentifier("https://plant.example/a")), URI_CA),
    "SHA-1": (fix_pki.sha1_signed(issue("leaf", RSA_CA), RSA_CA), RSA_CA),
    "Ed25519 key": (issue("leaf", EDWARDS_CA), EDWARDS_CA),
    "brainpool key": (issue("leaf", BRAINPOOL_CA), BRAINPOOL_CA),
}


@pytest.mark.parametrize("kind", UNFAMILIAR)
def test_a_form_that_client_verifier_does_not_take_is_no_fault(kind):
    leaf, issuer = UNFAMILIAR[kind]
    assert client_verifier_verdict(leaf.certificate, [], der(issuer), NOW)
    chain = find(leaf, trusted=(issuer,))
    assert chain.is_sound
    assert not find(leaf, trusted=(issue(names(chain)[1], is_ca=True, key=fix_pki.ec_key("wrong")),)).is_sound


def test_what_else_client_verifier_objects_to_is_told():
    nameless = issue(None, is_ca=True, key=ROOT.key)
    chain = find(issue("leaf", nameless), trusted=(nameless,))
    assert chain.end is ChainEnd.TRUSTED
    assert chain.refusal == "validation failed: certificate must have a non-empty Issuer"
    assert not chain.is_sound
    chain = find(
        issue("leaf", issue("ca", nameless, is_ca=True)), issue("ca", nameless, is_ca=True), trusted=(nameless,)
    )
    assert "non-empty Issuer" in chain.refusal


def test_a_name_that_client_verifier_cannot_even_print():
    expired = issue("dev-02", ROOT, **OLD)
    unprintable = changed(expired, field(5, lambda name: name.replace(b"\x0c\x06", b"\x00\x06")), ROOT)
    assert "cannot be read" in _client_verifier(*map(ChainCertificate, der(unprintable, ROOT)), NOW)
    assert not find(unprintable).is_sound


def test_name_constraints_of_a_device_that_cannot_be_read_are_left_to_client_verifier():
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.30"), b"\x05")
    leaf = issue("leaf", ROOT, extensions=[(broken, False)])
    assert find(leaf).refusal == client_verifier_verdict(leaf.certificate, [], der(ROOT), NOW).partition(" (enc")[0]


def test_client_verifier_is_told_to_take_no_issuer_that_is_no_ca():
    middle = issue("middle", ROOT)
    assert "basicConstraints.cA" in _client_verifier(*map(ChainCertificate, der(issue("leaf", middle), middle)), NOW)


# --- What is remembered -------------------------------------------------------------------------------------


def test_what_was_found_once_is_found_again():
    service = known(ROOT)
    first = find_chain(der(LEAF, INTERMEDIATE), service, NOW)
    assert service.load(INTERMEDIATE.certificate) is first.links[1].certificate
    assert service.load(LEAF.certificate) is not first.links[0].certificate
    assert find_chain(der(LEAF, INTERMEDIATE), service, NOW).is_sound
    # What is remembered are signatures: dates are looked at anew.
    assert not find_chain(der(LEAF, INTERMEDIATE), service, NOW + 366 * DAY).is_sound
    assert find_chain(der(LEAF, INTERMEDIATE), service, NOW).is_sound


def test_a_forged_device_certificate_below_remembered_issuers():
    service = known(ROOT)
    assert find_chain(der(LEAF, INTERMEDIATE), service, NOW).is_sound
    forged = issue("dev-01", issue("Line A Intermediate", is_ca=True, key=fix_pki.ec_key("forger")))
    chain = find_chain(der(forged, INTERMEDIATE), service, NOW)
    assert chain.end is ChainEnd.SIGNATURE_WRONG


def test_a_forged_issuer_is_not_remembered():
    service = known(ROOT)
    forged = issue("Line A Intermediate", issue("Plant Root", is_ca=True, key=fix_pki.ec_key("forger")), is_ca=True)
    for _ in range(2):
        assert not find_chain(der(issue("dev", forged), forged), service, NOW).is_sound
    assert service.load(forged.certificate) is not service.load(forged.certificate)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("muster.pki.verify._REMEMBERED_CHAINS", 2)
    service = known(ROOT)
    for number in range(5):
        middle = issue("middle", ROOT, is_ca=True, serial_number=number + 1)
        assert find_chain(der(issue("dev", middle), middle), service, NOW).is_sound
        assert len(service._proven) <= 2
        assert len(service._remembered) <= 4
