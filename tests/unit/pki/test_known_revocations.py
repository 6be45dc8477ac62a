"""What lists say about a device, whatever it sends along: `dev-01` under `Line A` under `Plant Root`."""

from muster.pki.certificate_order import validity
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.issuance import Issuer, issue, self_sign
from muster.pki.known_revocations import KnownRevocations, Standing, is_revoked
from muster.pki.revocation import Revocation, RevocationStatus, parse_revocation_list, sign_revocation_list
from tests.support.fix_ca import DAY, NOW, intermediate, key, leaf, order, root, to_der

ROOT, LINE, DEVICE = (ChainCertificate(to_der(one)) for one in (root().certificate, intermediate().certificate, leaf()))
LINE_SERIAL, DEVICE_SERIAL, ROOT_SERIAL = (
    one.serial_number for one in (intermediate().certificate, leaf(), root().certificate)
)


def signed(issuer, *serials, number=1, at=NOW, days=30):
    content = sign_revocation_list(issuer, [Revocation(one, NOW - DAY) for one in serials], number, at, at + days * DAY)
    return parse_revocation_list(content)


def told(known, *path, sent=(), now=NOW, others=()):
    found = known.judge(path, now, sent=sent, known=lambda name: [one for one in others if one.subject == name])
    return [(one.certificate.facts.common_name, str(one.finding.status)) for one in found]


def namesake():
    """Another CA of the name ``Line A``."""
    return Issuer(
        issue(order("Line A", "intermediate-ca", kind="ec-p384", serial_number=99), root()), key("Line A", "ec-p384")
    )


BY_LINE = signed(intermediate(), DEVICE_SERIAL)
BY_ROOT = signed(root(), LINE_SERIAL)
CLEAN = (signed(intermediate()), signed(root()))


def test_a_whole_chain():
    known = KnownRevocations([BY_LINE])
    assert told(known, DEVICE, LINE, ROOT)[0] == ("dev-01", "revoked")
    known = KnownRevocations([BY_ROOT])
    assert told(known, DEVICE, LINE, ROOT)[:2] == [("dev-01", "unknown"), ("Line A", "revoked")]
    assert told(KnownRevocations(CLEAN), DEVICE, LINE, ROOT) == [("dev-01", "good"), ("Line A", "good")]


def test_a_device_need_not_send_its_issuers():
    known = KnownRevocations([BY_LINE], [LINE])
    assert told(known, DEVICE) == [("dev-01", "revoked")]
    known = KnownRevocations([BY_ROOT], [LINE, ROOT])
    assert told(known, DEVICE) == [("dev-01", "unknown"), ("Line A", "revoked")]


def test_issuers_that_it_sends_or_that_are_known_count_too():
    known = KnownRevocations([BY_LINE, BY_ROOT])
    assert told(known, DEVICE) == []
    assert told(known, DEVICE, sent=[LINE]) == [("dev-01", "revoked")]
    assert told(known, DEVICE, others=[LINE]) == [("dev-01", "revoked")]
    only_root = KnownRevocations([BY_ROOT])
    assert told(only_root, DEVICE, sent=[LINE], others=[ROOT])[1] == ("Line A", "revoked")


def test_a_verified_ca_is_followed_further_up():
    """A chain ends at the first verified CA certificate; the one that issued that may have revoked it."""
    assert told(KnownRevocations([BY_ROOT], [ROOT]), DEVICE, LINE)[1] == ("Line A", "revoked")


def test_a_list_that_another_ca_of_the_name_signed_does_not_count():
    other = Issuer(
        issue(order("Line A", "intermediate-ca", kind="ec-p384", serial_number=99), root()), key("Line A", "ec-p384")
    )
    forged = signed(other, DEVICE_SERIAL, number=9)
    known = KnownRevocations([forged], [LINE])
    assert known.standing(forged) is Standing.NOT_SIGNED
    assert told(known, DEVICE) == [("dev-01", "unknown")]
    assert told(known, DEVICE, LINE) == [("dev-01", "unknown")]
    # Nor when that CA is known, because it did not issue the certificate.
    known = KnownRevocations([forged], [LINE, ChainCertificate(to_der(other.certificate))])
    assert known.standing(forged) is Standing.COUNTS
    assert not is_revoked(known.judge([DEVICE], NOW))
    # And a revoked CA of the same name takes nothing away from the one that did.
    both = KnownRevocations([signed(root(), other.certificate.serial_number)], [LINE, ROOT])
    assert not is_revoked(both.judge([DEVICE], NOW, sent=[ChainCertificate(to_der(other.certificate))]))


def test_two_cas_of_one_name_with_one_parent():
    """The second of them issued the certificate; that their parent is revoked shows on either way."""
    other = Issuer(
        issue(order("Line A", "intermediate-ca", kind="ec-p384", serial_number=99), root()), key("Line A", "ec-p384")
    )
    child = ChainCertificate(to_der(issue(order("dev-02"), other)))
    top = signed(root(), ROOT_SERIAL)
    loaded = ChainCertificate(to_der(other.certificate))
    for beside in ([LINE, loaded, ROOT], [loaded, LINE, ROOT]):
        found = KnownRevocations([top], beside).judge([child], NOW)
        assert [one.certificate.facts.common_name for one in found] == ["dev-02", "Line A", "Plant Root"]
        assert found[1].certificate.der == loaded.der
        assert found[2].finding.status is RevocationStatus.REVOKED


def test_a_root_that_takes_itself_back():
    known = KnownRevocations([signed(root(), ROOT_SERIAL)], [ROOT])
    assert told(known, DEVICE, LINE)[-1] == ("Plant Root", "revoked")


def test_a_renewed_ca_counts_with_its_newest_certificate():
    """The old certificate is revoked as superseded: what the CA issued stays good."""
    renewed = issue(order("Line A", "intermediate-ca", valid=validity(NOW + DAY, 30), serial_number=77), root())
    superseded = signed(root(), LINE_SERIAL)
    new = ChainCertificate(to_der(renewed))
    for beside in ([LINE, new, ROOT], [new, LINE, ROOT]):
        known = KnownRevocations([superseded], beside)
        assert not is_revoked(known.judge([DEVICE], NOW))
        assert is_revoked(known.judge([DEVICE, LINE], NOW)), "a device that sends the old one leans on it"


def test_standing():
    older, newer = signed(intermediate()), signed(intermediate(), number=2, at=NOW + DAY)
    known = KnownRevocations([older, newer, BY_ROOT], [LINE])
    assert [known.standing(one) for one in known.lists] == [Standing.OLDER, Standing.COUNTS, Standing.SIGNER_UNKNOWN]


def test_an_overdue_list_goes_on_to_revoke():
    known = KnownRevocations([BY_LINE, signed(root())], [LINE, ROOT])
    assert told(known, DEVICE, now=NOW + 400 * DAY) == [("dev-01", "revoked")]
    known = KnownRevocations([signed(intermediate())], [LINE])
    assert told(known, DEVICE, now=NOW + 400 * DAY) == [("dev-01", "stale")]


def test_crossed_certificates_end():
    """Two CAs that certify one another, and a device below."""
    a, b = key("A"), key("B")
    a_root = Issuer(self_sign(order("A", "root-ca"), a), a)
    b_root = Issuer(self_sign(order("B", "root-ca"), b), b)
    crossed = [
        issue(order(child, "root-ca", serial_number=number), parent)
        for number, (child, parent) in enumerate((("A", b_root), ("B", a_root)), 5)
    ]
    device = issue(order("dev-09"), a_root)
    beside = [ChainCertificate(to_der(one)) for one in crossed]
    known = KnownRevocations([signed(b_root, crossed[0].serial_number)], beside)
    assert is_revoked(known.judge([ChainCertificate(to_der(device))], NOW))
    assert not is_revoked(KnownRevocations([], beside).judge([ChainCertificate(to_der(device))], NOW))
