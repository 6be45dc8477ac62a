"""Whatever tree of certificates a device comes from, and however it is broken: the verdict is OpenSSL's."""

import itertools
from dataclasses import dataclass, field

import msgspec
from cryptography import x509
from hypothesis import event, given, settings
from hypothesis import strategies as st

from muster.domain.chain_attestation import attest_x509_ca_reference, attest_x509_group
from muster.domain.check_table import verdict
from muster.domain.x509_trust import CaCertificate, X509Group, X509Trust
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.verify import ChainEnd, KnownCertificates, find_chain
from tests.support import fix_pki
from tests.support.chain_oracles import client_verifier_verdict, openssl_verdict
from tests.support.fix_pki import DAY, NOW, Identity, ec_key, issue

DEVICE = "device"


@dataclass(frozen=True)
class Node:
    """One certificate of a tree; ``parent`` is the number of the one above it, None for a root."""

    identity: Identity = field(repr=False)
    parent: int | None
    made: str

    @property
    def der(self):
        return self.identity.certificate


@dataclass(frozen=True)
class World:
    """Roots and intermediates, with the device's certificate last; what the device sent, and what is trusted."""

    nodes: list[Node]
    sent: tuple[bytes, ...]
    trusted: tuple[bytes, ...]

    def __repr__(self):
        numbers = {node.der: number for number, node in enumerate(self.nodes)}
        sent, trusted = ([numbers[one] for one in some] for some in (self.sent, self.trusted))
        return f"World({self.nodes}, {sent=}, {trusted=})"

    @property
    def device(self):
        return self.nodes[-1]

    def known(self):
        return KnownCertificates(map(ChainCertificate, self.trusted))


NOTHING = [{}] * 6
DATES = [{"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}, {"not_before": NOW + DAY}]
KEY_USAGES = """
digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign
encipher_only decipher_only
"""


def key_usage(*bits):
    return x509.KeyUsage(**{bit: bit in bits for bit in KEY_USAGES.split()})


def extensions(*listed):
    return {"extensions": listed}


CRITICAL = extensions((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True))
GOOD_USAGE = extensions((key_usage("key_cert_sign"), True))
BAD_USAGE = extensions((key_usage("crl_sign"), True))
LIMITS = [
    extensions((x509.NameConstraints([x509.DNSName("plant.example")], None), True)),
    extensions((x509.NameConstraints(None, [x509.DNSName("secret.plant.example")]), True)),
]
NAMES = [
    extensions((x509.SubjectAlternativeName([x509.DNSName(name)]), False))
    for name in ("a.plant.example", "b.secret.plant.example", "elsewhere.example")
]
CA_OPTIONS = [
    *NOTHING,
    *DATES,
    *LIMITS,
    *({"path_length": length} for length in range(3)),
    {"is_ca": False},
    {"is_ca": None},
    CRITICAL,
    GOOD_USAGE,
    BAD_USAGE,
]
DEVICE_OPTIONS = [*NOTHING, *DATES, *NAMES, CRITICAL, {"is_ca": True}]


def forged(issuer):
    """A certificate of the same name as the issuer's, with another key."""
    return Identity(issuer.certificate, ec_key("forger"))


def misnamed(issuer):
    """The issuer under another name, with the same key."""
    return issue("somebody else", is_ca=True, key=issuer.key)


def honest(issuer):
    return issuer


SIGNERS = [*[honest] * 8, forged, misnamed]


@st.composite
def trees(draw, *, unique_names):
    """Nodes from the roots to the device, each with perhaps something wrong with it."""
    names_keys = draw(st.booleans()) or not unique_names
    nodes = []
    for number in range(draw(st.integers(1, 5))):
        parent = draw(st.one_of(st.none(), st.integers(0, number - 1))) if number else None
        name = f"ca {number if unique_names else draw(st.integers(0, 2))}"
        key = ec_key(f"key {number}" if unique_names else f"key of {name} {draw(st.integers(0, 1))}")
        options = {"is_ca": True, "names_issuer_key": names_keys, **draw(st.sampled_from(CA_OPTIONS))}
        signer = draw(st.sampled_from(SIGNERS))
        issuer = None if parent is None else signer(nodes[parent].identity)
        nodes.append(Node(issue(name, issuer, key=key, **options), parent, f"{name}, {signer.__name__}: {options}"))
    parent = draw(st.integers(0, len(nodes) - 1))
    signer = draw(st.sampled_from(SIGNERS))
    options = {"names_issuer_key": names_keys, **draw(st.sampled_from(DEVICE_OPTIONS))}
    if unique_names and draw(st.integers(0, 9)) == 0:
        # Only among unique names: it has no key identifier, and without one OpenSSL takes any issuer of the name.
        device, options = fix_pki.version_1(DEVICE, signer(nodes[parent].identity)), {"version": 1}
    else:
        device = issue(DEVICE, signer(nodes[parent].identity), **options)
    return [*nodes, Node(device, parent, f"{signer.__name__}: {options}")]


def line(nodes, number):
    """The certificate with that number and those above it."""
    while number is not None:
        yield nodes[number].der
        number = nodes[number].parent


@st.composite
def worlds(draw, *, unique_names=True):
    nodes = draw(trees(unique_names=unique_names))
    cas = [node.der for node in nodes[:-1]]
    above = [*line(nodes, nodes[-1].parent)]
    sent = draw(st.one_of(st.just(above), st.just(above[:-1]), st.lists(st.sampled_from(cas), max_size=6)))
    trusted = draw(st.one_of(st.just(above[-1:]), st.lists(st.sampled_from(cas), max_size=3)))
    return World(nodes, (nodes[-1].der, *draw(st.permutations(sent))), tuple(trusted))


def paths(world, certificates):
    """Every way by names from the device to a trusted certificate."""
    loaded = {certificate: ChainCertificate(certificate) for certificate in certificates}

    def grow(path):
        if len(path) > 1 and path[-1] in world.trusted:
            yield path
        for above in certificates:
            if above not in path and loaded[above].subject == loaded[path[-1]].issuer:
                yield from grow([*path, above])

    return grow([world.device.der])


def openssl_accepts(world):
    """Whether OpenSSL accepts one of the ways; each is asked alone, because OpenSSL tries only one itself."""
    certificates = list(dict.fromkeys((*world.sent, *world.trusted)))
    return any(
        not openssl_verdict(path[0], path[1:-1], path[-1:], NOW)
        for path in itertools.islice(paths(world, certificates), 200)
    )


@given(worlds())
@settings(max_examples=200, deadline=None)
def test_the_verdict_is_that_of_openssl(world):
    chain = find_chain(world.sent, world.known(), NOW)
    event(f"{chain.end}, {'sound' if chain.is_sound else 'not sound'}")
    assert chain.is_sound == openssl_accepts(world)


@given(worlds(unique_names=False))
@settings(max_examples=150, deadline=None)
def test_cross_signed_certificates_deceive_nobody(world):
    """With several ways the shortest is taken: one that only a longer way proves may be refused, never the reverse."""
    chain = find_chain(world.sent, world.known(), NOW)
    event(f"{chain.end}, {'sound' if chain.is_sound else 'not sound'}")
    if chain.is_sound:
        path = [link.certificate.der for link in chain.links]
        assert not openssl_verdict(path[0], path[1:-1], path[-1:], NOW)
    elif openssl_accepts(world):
        event("only by a longer way")
        assert chain.end is ChainEnd.TRUSTED


@given(worlds())
@settings(max_examples=150, deadline=None)
def test_client_verifier_agrees_over_the_whole_chain(world):
    """But for what it does not judge (key usage), and what it does not take (version 1)."""
    chain = find_chain(world.sent, world.known(), NOW)
    accepted = not client_verifier_verdict(world.sent[0], world.sent[1:], world.trusted, NOW)
    familiar = not chain.links[0].certificate.is_unfamiliar
    if chain.is_sound:
        assert accepted is familiar
    elif accepted and world.device.der not in world.trusted:
        assert any(not link.may_issue and link.certificate.facts.is_ca for link in chain.links[1:])


@st.composite
def groups(draw, world):
    cas = st.sampled_from([node.der for node in world.nodes[:-1]])
    slots = draw(st.lists(st.lists(cas, min_size=1, max_size=2), max_size=4))
    return [X509Group(f"group {number}", draw(st.booleans()), tuple(slot)) for number, slot in enumerate(slots)]


def group_by_the_rules(world, listed):
    """The group of dps.md 4.1 and 4.5, by the tree itself: nearest to the device, on a chain to a verified CA."""
    path = list(line(world.nodes, len(world.nodes) - 1))
    at = next((at for at in range(1, len(path)) if any(path[at] in one.certificates for one in listed)), None)
    if at is None:
        return None
    end = next((end for end in range(at, len(path)) if path[end] in world.trusted), None)
    if end is None or not all(one in world.sent or one in world.trusted for one in path[1:end]):
        return None
    if openssl_verdict(path[0], path[1:end], path[end : end + 1], NOW):
        return None
    return min((one for one in listed if path[at] in one.certificates), key=lambda one: one.enabled).group_id


def trust(world, listed):
    return X509Trust(listed, [CaCertificate(f"ca {number}", one, True) for number, one in enumerate(world.trusted)])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_group_is_that_of_the_rules(data):
    world = data.draw(worlds())
    listed = data.draw(groups(world))
    judged = attest_x509_group(world.sent, trust(world, listed), DEVICE, NOW)
    accepted = verdict(judged.checks) is None
    is_ca = ChainCertificate(world.device.der).facts.is_ca
    expected = None if is_ca else group_by_the_rules(world, listed)
    event("accepted" if accepted else str(verdict(judged.checks).__name__))
    assert (judged.group_id if accepted else None) == expected
    assert len({check.id for check in judged.checks}) == len(judged.checks)
    assert all(check.fix for check in judged.checks if check.outcome in ("refused", "warned"))


@given(st.data())
@settings(max_examples=75, deadline=None)
def test_a_ca_reference_is_a_group_of_one(data):
    world = data.draw(worlds())
    certificates = data.draw(st.lists(st.sampled_from([node.der for node in world.nodes[:-1]]), max_size=2))
    checks = attest_x509_ca_reference(world.sent, certificates, trust(world, []), DEVICE, NOW)
    expected = group_by_the_rules(world, [X509Group("one", True, tuple(certificates))])
    assert (verdict(checks) is None) == (expected is not None)


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=75, deadline=None)
def test_the_order_behind_the_device_s_certificate_does_not_count(world, random):
    others = list(world.sent[1:])
    random.shuffle(others)
    first = find_chain(world.sent, world.known(), NOW)
    second = find_chain((world.sent[0], *others), world.known(), NOW)
    assert first.is_sound == second.is_sound
    assert [link.certificate.der for link in first.links] == [link.certificate.der for link in second.links]


@given(worlds(unique_names=False), st.integers(0, 4 * NOW))
@settings(max_examples=60, deadline=None)
def test_what_is_remembered_changes_nothing(world, later):
    known = world.known()
    for now in (NOW, later, NOW):
        fresh, again = find_chain(world.sent, world.known(), now), find_chain(world.sent, known, now)
        assert (fresh.is_sound, fresh.end, fresh.refusal) == (again.is_sound, again.end, again.refusal)


@st.composite
def damaged(draw, whole):
    """The bytes with a few of them changed, and perhaps cut."""
    content = bytearray(whole)
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


CHAIN = (fix_pki.chain_leaf().certificate, fix_pki.intermediate().certificate)
LINE_A = X509Trust([X509Group("line-a", True, CHAIN[1:])], [CaCertificate("root", fix_pki.root().certificate, True)])


def body(certificate):
    return x509.load_der_x509_certificate(certificate).tbs_certificate_bytes


def judge(chain, registration_id, now):
    """In both ways; what comes out can be shown and stored."""
    judged = attest_x509_group(chain, LINE_A, registration_id, now)
    attest_x509_ca_reference(chain, CHAIN[1:], LINE_A, registration_id, now)
    assert all(check.detail.isprintable() and check.fix.isprintable() for check in judged.checks)
    msgspec.json.encode(judged.checks)
    return judged


@given(damaged(CHAIN[0]), damaged(CHAIN[1]), st.text(max_size=70), st.integers(0, 4 * NOW))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_judged(leaf, intermediate, registration_id, now):
    for chain in ((leaf, intermediate), (leaf, *CHAIN), (*CHAIN, intermediate)):
        judge(chain, registration_id, now)
        judged = judge(chain, "dev-01", NOW)
        if verdict(judged.checks) is None:
            assert body(chain[0]) == body(CHAIN[0])
            assert judged.group_id == "line-a"


@given(damaged(body(CHAIN[0])), damaged(body(CHAIN[1])))
@settings(max_examples=150, deadline=None)
def test_any_bytes_that_a_ca_has_signed_are_judged(of_leaf, of_intermediate):
    leaf = fix_pki.signed_body(of_leaf, fix_pki.intermediate())
    intermediate = fix_pki.signed_body(of_intermediate, fix_pki.root())
    root = fix_pki.root().certificate
    for chain in ((leaf, CHAIN[1]), (CHAIN[0], intermediate), (leaf, intermediate)):
        trust = X509Trust([X509Group("any", True, chain[1:])], [CaCertificate("root", root, True)])
        judged = attest_x509_group(chain, trust, "dev-01", NOW)
        event("refused" if verdict(judged.checks) else "accepted")
        judge(chain, "dev-01", NOW)
