import pytest
from cryptography import x509

from muster.domain.attestation import EnrolledCertificates, attest_x509_individual, enrolled_certificate
from muster.domain.chain_attestation import attest_x509_ca_reference, attest_x509_group
from muster.domain.check_table import CHECKS, verdict
from muster.domain.errors import ArgumentInvalidError, CaCertificateNotFoundError, InvalidCertificateError
from muster.domain.report import Outcome
from muster.domain.x509_trust import CaCertificate, X509Group, X509Trust
from muster.pki.certificate import sha1_thumbprint
from tests.support import fix_pki
from tests.support.fix_pki import DAY, NOW, SERVER_AUTH, changed, ec_key, issue

NAME = "dev-01"
ROOT, INTERMEDIATE, LEAF = fix_pki.root(), fix_pki.intermediate(), fix_pki.chain_leaf()
OTHER_ROOT = issue("Other Root", is_ca=True)
OLD = {"not_before": NOW - 30 * DAY, "not_after": NOW - 10 * DAY}
NEW = {"not_before": NOW + 3 * DAY}

REFUSED, WARNED, SKIPPED = Outcome.REFUSED, Outcome.WARNED, Outcome.SKIPPED


def der(*identities):
    return tuple(identity.certificate for identity in identities)


def group(name, *certificates, enabled=True):
    return X509Group(name, enabled, der(*certificates))


def trust(*groups, verified=(ROOT,), uploaded=()):
    named = [(f"ca-{number}", one, one in verified) for number, one in enumerate((*verified, *uploaded), 1)]
    return X509Trust(groups, [CaCertificate(name, one.certificate, yes) for name, one, yes in named])


def attest(*presented, groups=(), verified=(ROOT,), uploaded=(), name=NAME, now=NOW):
    return attest_x509_group(der(*presented), trust(*groups, verified=verified, uploaded=uploaded), name, now)


LINE_A = group("line-a", INTERMEDIATE)
PLANT = group("plant", ROOT)


def by_id(checks):
    assert len({check.id for check in checks}) == len(checks)
    return {check.id: check for check in checks}


def failing(checks):
    return {check.id: check.outcome for check in checks if check.outcome is not Outcome.PASSED}


def refusals(checks):
    return {check_id for check_id, outcome in failing(checks).items() if outcome is REFUSED}


# --- Groups -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [LINE_A, PLANT])
def test_a_device_of_a_group_passes_every_check(one):
    judged = attest(LEAF, INTERMEDIATE, groups=[one])
    assert judged.group_id == one.group_id
    assert failing(judged.checks) == {}
    assert verdict(judged.checks) is None
    assert all(check.detail and not check.fix for check in judged.checks)


def test_every_row_about_chains_is_checked():
    rows = list(CHECKS)
    about_chains = rows[rows.index("x509.chain-order") : rows.index("x509.leaf-client-auth") + 1]
    of_a_group = by_id(attest(LEAF, INTERMEDIATE, groups=[LINE_A]).checks)
    by_a_ca = by_id(attest_x509_ca_reference(der(LEAF, INTERMEDIATE), der(ROOT), trust(), NAME, NOW))
    assert set(about_chains) <= of_a_group.keys() | by_a_ca.keys()
    assert set(about_chains) - of_a_group.keys() == {"x509.signing-certificate", "ca.verified"}
    assert set(about_chains) - by_a_ca.keys() == {
        "x509.group-certificate-verified",
        "x509.leaf-not-ca",
        "x509.leaf-client-auth",
    }


@pytest.mark.parametrize(("slot", "certificates"), [("primary", (ROOT, OTHER_ROOT)), ("secondary", (OTHER_ROOT, ROOT))])
def test_primary_and_secondary_count_alike(slot, certificates):
    judged = attest(LEAF, INTERMEDIATE, groups=[group("plant", *certificates)])
    assert failing(judged.checks) == {}
    assert (
        by_id(judged.checks)["enrollment.group-exists"].detail
        == f'"CN=Plant Root" is the {slot} certificate of group "plant"'
    )


@pytest.mark.parametrize("groups", [(LINE_A, PLANT), (PLANT, LINE_A)])
def test_the_deepest_match_decides(groups):
    assert attest(LEAF, INTERMEDIATE, groups=groups).group_id == "line-a"


def test_the_deepest_match_decides_though_it_is_disabled():
    disabled = group("line-a", INTERMEDIATE, enabled=False)
    judged = attest(LEAF, INTERMEDIATE, groups=[disabled, PLANT])
    assert judged.group_id == "line-a"
    assert failing(judged.checks) == {}


def test_of_groups_with_the_same_certificate_a_disabled_one_decides():
    groups = [group("first", ROOT), group("second", ROOT, enabled=False), group("third", ROOT)]
    judged = attest(LEAF, INTERMEDIATE, groups=groups)
    assert judged.group_id == "second"
    detail = by_id(judged.checks)["enrollment.group-exists"].detail
    assert detail.endswith('is the primary certificate of group "second", and of "first", "third"')
    assert attest(LEAF, INTERMEDIATE, groups=[groups[2], groups[0]]).group_id == "third"


def test_no_certificate():
    judged = attest(groups=[LINE_A])
    assert judged.group_id is None
    assert verdict(judged.checks) is InvalidCertificateError
    assert failing(judged.checks) == {
        "x509.certificate-presented": REFUSED,
        "x509.issuer-known": SKIPPED,
        "x509.chain": SKIPPED,
        "x509.common-name": SKIPPED,
        "x509.not-before": SKIPPED,
        "x509.not-after": SKIPPED,
        "enrollment.group-exists": SKIPPED,
    }
    assert "muster ca issue dev-01" in by_id(judged.checks)["x509.certificate-presented"].fix


def test_bytes_that_are_no_certificate():
    judged = attest_x509_group((b"garbage", *der(INTERMEDIATE)), trust(LINE_A), NAME, NOW)
    assert judged.group_id is None
    assert failing(judged.checks) == {"x509.parses": REFUSED}
    assert verdict(judged.checks) is InvalidCertificateError


def test_an_illegal_registration_id():
    assert verdict(attest(LEAF, INTERMEDIATE, groups=[LINE_A], name="a/b").checks) is ArgumentInvalidError


# --- x509.issuer-known --------------------------------------------------------------------------------------


def test_the_intermediate_was_not_sent():
    judged = attest(LEAF, groups=[PLANT])
    assert judged.group_id is None
    assert verdict(judged.checks) is CaCertificateNotFoundError
    assert refusals(judged.checks) == {"x509.issuer-known"}
    refused = by_id(judged.checks)["x509.issuer-known"]
    assert refused.detail == (
        'issuer "CN=Line A Intermediate" of "CN=dev-01" is not in the TLS handshake, and no verified CA certificate'
    )
    assert "cat dev-01.pem inter.pem > fullchain.pem" in refused.fix
    assert "muster certificate upload inter.pem --verify" in refused.fix
    assert by_id(judged.checks)["enrollment.group-exists"].outcome is SKIPPED


def test_the_intermediate_was_not_sent_but_is_the_group_s():
    judged = attest(LEAF, groups=[LINE_A])
    assert judged.group_id == "line-a"
    assert verdict(judged.checks) is CaCertificateNotFoundError
    assert refusals(judged.checks) == {"x509.issuer-known"}
    detail = by_id(judged.checks)["x509.issuer-known"].detail
    assert 'it is that of group "line-a", and as it is not verified itself, the device has to send it' in detail


def test_the_intermediate_was_not_sent_and_is_uploaded_without_proof():
    judged = attest(LEAF, groups=[PLANT], uploaded=[INTERMEDIATE])
    assert refusals(judged.checks) == {"x509.issuer-known"}
    assert 'it is the CA certificate "ca-2", and' in by_id(judged.checks)["x509.issuer-known"].detail


def test_a_verified_intermediate_need_not_be_sent():
    judged = attest(LEAF, groups=[LINE_A], verified=[INTERMEDIATE])
    assert failing(judged.checks) == {}
    assert failing(attest(LEAF, groups=[PLANT], verified=[INTERMEDIATE, ROOT]).checks) == {}


def test_a_link_above_the_group_was_not_sent():
    lower = issue("lower", INTERMEDIATE, is_ca=True)
    leaf = issue(NAME, lower)
    judged = attest(leaf, lower, groups=[group("lower", lower)])
    assert judged.group_id == "lower"
    assert verdict(judged.checks) is CaCertificateNotFoundError
    assert refusals(judged.checks) == {"x509.issuer-known", "x509.group-certificate-verified"}
    assert failing(attest(leaf, lower, INTERMEDIATE, groups=[group("lower", lower)]).checks) == {}


def test_an_issuer_whose_name_is_encoded_in_another_way():
    recoded = INTERMEDIATE.certificate.replace(b"\x0c\x13Line A Intermediate", b"\x13\x13Line A Intermediate")
    judged = attest_x509_group((LEAF.certificate, recoded), trust(PLANT), NAME, NOW)
    assert "its name is encoded in another way" in by_id(judged.checks)["x509.issuer-known"].detail


def test_a_self_signed_certificate():
    judged = attest(fix_pki.self_signed(), groups=[LINE_A])
    assert verdict(judged.checks) is CaCertificateNotFoundError
    refused = by_id(judged.checks)["x509.issuer-known"]
    assert refused.detail == """the device's certificate "CN=dev-01" is self-signed, no CA issued it"""
    assert "muster enrollment create --certificate dev-01.pem" in refused.fix


def test_the_group_s_own_certificate_is_presented():
    judged = attest(ROOT, groups=[PLANT], verified=[])
    assert judged.group_id is None
    assert 'it is that of group "plant" itself' in by_id(judged.checks)["x509.issuer-known"].detail
    assert {"x509.issuer-known", "x509.leaf-not-ca", "x509.common-name"} <= refusals(judged.checks)


def test_more_cas_than_are_taken():
    floors = [ROOT]
    for number in range(8):
        floors.append(issue(f"floor {number}", floors[-1], is_ca=True))
    judged = attest(issue(NAME, floors[-1]), *reversed(floors[1:]), groups=[PLANT])
    assert verdict(judged.checks) is CaCertificateNotFoundError
    assert "among the 8 above" in by_id(judged.checks)["x509.issuer-known"].detail


# --- x509.chain ---------------------------------------------------------------------------------------------


def test_the_signatures_are_told():
    detail = by_id(attest(LEAF, INTERMEDIATE, groups=[PLANT]).checks)["x509.chain"].detail
    assert detail == 'each is signed by the next: "CN=dev-01" < "CN=Line A Intermediate" < "CN=Plant Root"'


def test_an_issuer_of_the_right_name_with_another_key():
    namesake = issue("Line A Intermediate", ROOT, is_ca=True, key=ec_key("other"))
    judged = attest(LEAF, namesake, groups=[LINE_A, PLANT])
    assert judged.group_id is None
    assert verdict(judged.checks) is CaCertificateNotFoundError
    assert refusals(judged.checks) == {"x509.chain"}
    refused = by_id(judged.checks)["x509.chain"]
    assert '"CN=dev-01" is not signed by "CN=Line A Intermediate"' in refused.detail
    assert sha1_thumbprint(namesake.certificate) in refused.detail
    assert "openssl verify -partial_chain -trusted inter.pem dev-01.pem" in refused.fix


def test_too_many_namesakes():
    many = [issue("Plant Root", is_ca=True, serial_number=number) for number in range(1, 41)]
    leaf = issue(NAME, issue("Plant Root", is_ca=True, key=ec_key("another")))
    judged = attest(leaf, groups=[group("plant", many[0])], verified=many)
    assert refusals(judged.checks) == {"x509.chain"}
    assert verdict(judged.checks) is CaCertificateNotFoundError
    assert "more than 32 signatures" in by_id(judged.checks)["x509.chain"].detail


# --- enrollment.group-exists --------------------------------------------------------------------------------


@pytest.mark.parametrize("verified", [[ROOT], [OTHER_ROOT]])
def test_no_group_has_a_certificate_of_the_chain(verified):
    judged = attest(LEAF, INTERMEDIATE, ROOT, groups=[group("other", OTHER_ROOT)], verified=verified)
    assert judged.group_id is None
    assert verdict(judged.checks) is CaCertificateNotFoundError
    assert refusals(judged.checks) == {"enrollment.group-exists"}
    refused = by_id(judged.checks)["enrollment.group-exists"]
    assert '"CN=Line A Intermediate", "CN=Plant Root"' in refused.detail
    assert "muster group create GROUP --certificate inter.pem" in refused.fix
    assert by_id(judged.checks)["x509.group-certificate-verified"].outcome is SKIPPED


def test_there_is_no_group():
    assert refusals(attest(LEAF, INTERMEDIATE).checks) == {"enrollment.group-exists"}


def test_a_group_has_another_certificate_of_the_same_ca():
    renewed = issue("Line A Intermediate", ROOT, is_ca=True)
    judged = attest(LEAF, INTERMEDIATE, groups=[group("line-a", renewed)])
    detail = by_id(judged.checks)["enrollment.group-exists"].detail
    assert 'group "line-a" has another certificate of the name "CN=Line A Intermediate"' in detail
    assert sha1_thumbprint(renewed.certificate) in detail
    assert sha1_thumbprint(INTERMEDIATE.certificate) in detail


# --- x509.group-certificate-verified ------------------------------------------------------------------------


def test_a_group_s_certificate_leads_to_a_verified_one():
    detail = by_id(attest(LEAF, INTERMEDIATE, groups=[LINE_A]).checks)["x509.group-certificate-verified"].detail
    assert detail == '"CN=Line A Intermediate" leads to "CN=Plant Root", which is verified'


def test_a_group_s_certificate_is_verified_itself():
    detail = by_id(attest(LEAF, INTERMEDIATE, groups=[PLANT]).checks)["x509.group-certificate-verified"].detail
    assert detail == '"CN=Plant Root" is a verified CA certificate'


@pytest.mark.parametrize("uploaded", [[], [ROOT]])
def test_a_group_s_certificate_that_nobody_verified(uploaded):
    judged = attest(LEAF, INTERMEDIATE, ROOT, groups=[PLANT], verified=[], uploaded=uploaded)
    assert judged.group_id == "plant"
    assert verdict(judged.checks) is CaCertificateNotFoundError
    assert refusals(judged.checks) == {"x509.group-certificate-verified"}
    refused = by_id(judged.checks)["x509.group-certificate-verified"]
    assert '"CN=Plant Root" is not verified' in refused.detail
    assert "muster certificate upload" in refused.fix


# --- The issuers --------------------------------------------------------------------------------------------


def family(root=None, middle=None, leaf=None):
    """Device, intermediate and root of their own, with the options given for each."""
    top = issue("root", is_ca=True, **(root or {}))
    between = issue("middle", top, **{"is_ca": True, **(middle or {})})
    return issue(NAME, between, **(leaf or {})), between, top


def refused_alone(check_id, *path, now=NOW, error=InvalidCertificateError, warned=()):
    """The one check that refuses a complete chain, whose last certificate is the group's and verified."""
    judged = attest(*path[:-1], groups=[group("plant", path[-1])], verified=path[-1:], now=now)
    assert judged.group_id == "plant"
    assert verdict(judged.checks) is error
    others = {"x509.chain-standard": SKIPPED} | {check_id: REFUSED} | dict.fromkeys(warned, WARNED)
    assert failing(judged.checks).items() <= others.items()
    refused = by_id(judged.checks)[check_id]
    assert refused.outcome is REFUSED
    assert refused.fix
    return refused


def test_a_family_passes():
    leaf, middle, root = family()
    assert failing(attest(leaf, middle, groups=[group("plant", root)], verified=[root]).checks) == {}


@pytest.mark.parametrize("place", ["root", "middle"])
def test_an_issuer_that_has_expired(place):
    refused = refused_alone("x509.chain-dates", *family(**{place: OLD}))
    assert refused.detail.startswith(f'"CN={place}" expired on ')
    assert ", 10 days ago; the clock here says " in refused.detail
    assert "muster group update GROUP --secondary" in refused.fix


def test_an_issuer_of_the_future():
    refused = refused_alone("x509.chain-dates", *family(middle=NEW))
    assert refused.detail.startswith('"CN=middle" valid from ')


def test_the_dates_of_the_issuers_are_told():
    middle = {"not_before": NOW - DAY, "not_after": 1_900_000_000_000_000}
    leaf, between, root = family(middle=middle, root={"not_after": NOW + 9_000 * DAY})
    judged = attest(leaf, between, groups=[group("plant", root)], verified=[root])
    detail = by_id(judged.checks)["x509.chain-dates"].detail
    assert detail == '2 certificates above it; "CN=middle" ends first, on 2030-03-17T17:46:40Z'


@pytest.mark.parametrize(
    ("options", "told"), [({"is_ca": False}, "CA:FALSE"), ({"is_ca": None}, "no basic constraints")]
)
def test_an_issuer_that_is_no_ca(options, told):
    refused = refused_alone("x509.chain-ca", *family(middle={**options, "usages": None}))
    assert f'"CN=middle" {"is" if told == "CA:FALSE" else "has"} {told}' in refused.detail


def test_an_issuer_that_may_not_sign_certificates():
    bits = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    usage = x509.KeyUsage(
        **dict.fromkeys(bits.split(), False) | {"crl_sign": True}, encipher_only=False, decipher_only=False
    )
    refused = refused_alone("x509.chain-ca", *family(middle={"extensions": [(usage, True)]}))
    assert "without keyCertSign" in refused.detail


def test_more_cas_than_a_path_length_allows():
    refused = refused_alone("x509.path-length", *family(root={"path_length": 0}))
    assert refused.detail == '"CN=root" has the path length 0, and more CAs are below it: "CN=middle"'


def test_a_name_that_is_excluded():
    limits = x509.NameConstraints([x509.DNSName("plant.example")], None)
    alias = x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")])
    path = family(root={"extensions": [(limits, True)]}, leaf={"extensions": [(alias, False)]})
    refused = refused_alone("x509.name-constraints", *path)
    assert refused.detail == '"CN=dev-01" has "elsewhere.example", which a CA above it may not certify'


@pytest.mark.parametrize("place", ["root", "middle", "leaf"])
def test_a_critical_extension_that_is_not_known(place):
    critical = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]
    refused = refused_alone("x509.chain-extensions", *family(**{place: {"extensions": critical}}))
    assert "1.2.3.4 is critical" in refused.detail


def test_an_extended_key_usage_that_cannot_be_read():
    broken = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.37"), b"\x05"), False)]
    path = family(leaf={"usages": None, "extensions": broken})
    refused_alone("x509.chain-extensions", *path, warned=["x509.extended-key-usage"])


def test_something_that_only_the_verifier_knows():
    root = issue(None, is_ca=True, key=ec_key("nameless"))
    refused = refused_alone("x509.chain-standard", issue(NAME, root), root)
    assert "non-empty Issuer" in refused.detail


# --- The device's own certificate ---------------------------------------------------------------------------


def test_an_expired_device():
    refused = refused_alone("x509.not-after", *family(leaf=OLD))
    assert "muster ca issue dev-01" in refused.fix


def test_a_device_of_the_future():
    refused_alone("x509.not-before", *family(leaf=NEW))


def test_the_common_name_is_the_registration_id():
    judged = attest(LEAF, INTERMEDIATE, groups=[LINE_A], name="dev-02")
    assert judged.group_id == "line-a"
    assert failing(judged.checks) == {"x509.common-name": REFUSED}
    assert verdict(judged.checks) is InvalidCertificateError
    assert "muster ca issue dev-02" in by_id(judged.checks)["x509.common-name"].fix
    judged = attest(LEAF, INTERMEDIATE, groups=[LINE_A], name="DEV-01")
    assert failing(judged.checks) == {"x509.common-name-case": WARNED}


def individually(identity):
    enrolled = EnrolledCertificates(enrolled_certificate(identity.certificate))
    return failing(attest_x509_individual(der(identity), enrolled, NAME, NOW))


def test_a_device_that_is_a_ca_is_warned_of_alone_and_refused_in_a_group():
    path = family(leaf={"is_ca": True, "usages": (fix_pki.CLIENT_AUTH,)})
    assert individually(path[0]) == {"x509.basic-constraints": WARNED}
    refused = refused_alone("x509.leaf-not-ca", *path)
    assert refused.detail == "CA:TRUE, a CA certificate"


def test_a_usage_without_client_auth_is_warned_of_alone_and_refused_in_a_group():
    path = family(leaf={"usages": (SERVER_AUTH,)})
    assert individually(path[0]) == {"x509.extended-key-usage": WARNED}
    refused = refused_alone("x509.leaf-client-auth", *path)
    assert refused.detail == 'extended key usage "serverAuth"'


def accepted(*path, **options):
    """The warnings of a device that a group takes."""
    judged = attest(*path[:-1], groups=[group("plant", path[-1])], verified=path[-1:], **options)
    assert judged.group_id == "plant"
    assert verdict(judged.checks) is None
    assert set(failing(judged.checks).values()) <= {WARNED}
    assert all(check.fix for check in judged.checks if check.outcome is WARNED)
    return list(failing(judged.checks))


def test_no_extended_key_usage_is_warned_of():
    assert accepted(*family(leaf={"usages": None})) == ["x509.extended-key-usage"]
    assert accepted(*family(leaf={"usages": (x509.ObjectIdentifier("2.5.29.37.0"),)})) == []


def test_version_1_is_warned_of():
    leaf = fix_pki.version_1(NAME, INTERMEDIATE)
    assert accepted(leaf, INTERMEDIATE, ROOT) == ["x509.extended-key-usage", "x509.version"]


def test_a_weak_issuer_is_warned_of():
    weak = issue("weak", is_ca=True, key=fix_pki.rsa_key(1024))
    leaf = issue(NAME, weak)
    assert accepted(leaf, weak) == ["x509.key-strength"]
    judged = attest(leaf, groups=[group("plant", weak)], verified=[weak])
    assert by_id(judged.checks)["x509.key-strength"].detail.endswith('; weak above it: "CN=weak"')


# --- x509.chain-order ---------------------------------------------------------------------------------------


def order(*presented, name=NAME):
    judged = attest_x509_group(presented, trust(PLANT), name, NOW)
    return by_id(judged.checks)["x509.chain-order"]


L, I, R, O = der(LEAF, INTERMEDIATE, ROOT, OTHER_ROOT)  # noqa: E741 - as short as the chains below


@pytest.mark.parametrize("presented", [(L,), (L, I), (L, I, R)])
def test_the_usual_order(presented):
    assert order(*presented).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("presented", "told"),
    [
        ((L, R, I), 'number 2 ("CN=Plant Root") did not issue the one before it'),
        ((L, I, O), 'number 3 ("CN=Other Root") did not issue the one before it'),
        ((L, I, b"garbage", R), "number 3 cannot be read"),
        ((I, L), 'number 2 is the one with the device\'s name: "CN=dev-01"'),
        ((L, I, *[R] * 9), "number 11 and those behind it are not looked at"),
    ],
)
def test_another_order_is_warned_of(presented, told):
    warned = order(*presented)
    assert warned.outcome is WARNED
    assert warned.detail.endswith(told)
    assert "cat dev-01.pem inter.pem > fullchain.pem" in warned.fix


def test_another_order_is_accepted():
    judged = attest_x509_group((L, O, R, I), trust(PLANT), NAME, NOW)
    assert verdict(judged.checks) is None
    assert failing(judged.checks) == {"x509.chain-order": WARNED}


def test_a_ca_that_stands_first_is_refused():
    judged = attest_x509_group((I, L, R), trust(PLANT), NAME, NOW)
    assert verdict(judged.checks) is InvalidCertificateError
    assert refusals(judged.checks) == {"x509.leaf-not-ca", "x509.common-name"}


# --- Individual enrollments by CA ---------------------------------------------------------------------------


def refer(*presented, by=(ROOT,), verified=(ROOT,), uploaded=(), name=NAME, now=NOW):
    return attest_x509_ca_reference(der(*presented), der(*by), trust(verified=verified, uploaded=uploaded), name, now)


@pytest.mark.parametrize("by", [(ROOT,), (INTERMEDIATE,), (OTHER_ROOT, ROOT)])
def test_a_device_under_the_ca_of_its_enrollment(by):
    checks = refer(LEAF, INTERMEDIATE, by=by)
    assert failing(checks) == {}
    assert verdict(checks) is None


def test_a_device_without_a_certificate():
    checks = attest_x509_ca_reference((), der(ROOT), trust(), NAME, NOW)
    assert verdict(checks) is InvalidCertificateError
    assert failing(checks)["x509.signing-certificate"] is SKIPPED


def test_a_device_whose_certificate_cannot_be_read():
    checks = attest_x509_ca_reference((b"garbage",), der(ROOT), trust(), NAME, NOW)
    assert failing(checks) == {"x509.parses": REFUSED}


def test_a_device_under_another_ca():
    checks = refer(LEAF, INTERMEDIATE, by=(OTHER_ROOT,), verified=(ROOT, OTHER_ROOT))
    assert verdict(checks) is CaCertificateNotFoundError
    assert failing(checks) == {"x509.signing-certificate": REFUSED, "ca.verified": SKIPPED}


def test_a_ca_reference_that_leads_nowhere():
    checks = refer(LEAF, INTERMEDIATE, by=())
    assert "are not there" in by_id(checks)["x509.signing-certificate"].detail


def test_a_broken_chain():
    checks = refer(LEAF)
    assert verdict(checks) is CaCertificateNotFoundError
    assert refusals(checks) == {"x509.issuer-known"}
    assert failing(checks)["x509.signing-certificate"] is SKIPPED


def test_a_ca_that_nobody_verified():
    checks = refer(LEAF, INTERMEDIATE, ROOT, verified=(), uploaded=(ROOT,))
    assert verdict(checks) is CaCertificateNotFoundError
    assert refusals(checks) == {"ca.verified"}


def test_the_leaf_is_judged_as_leniently_as_in_every_individual_enrollment():
    leaf, middle, root = family(leaf={"is_ca": True})
    checks = refer(leaf, middle, by=(root,), verified=(root,))
    assert verdict(checks) is None
    assert failing(checks) == {"x509.basic-constraints": WARNED, "x509.extended-key-usage": WARNED}
    leaf, middle, root = family(leaf={"usages": (SERVER_AUTH,)})
    assert failing(refer(leaf, middle, by=(root,), verified=(root,))) == {"x509.extended-key-usage": WARNED}


def test_dates_and_the_common_name_refuse():
    leaf, middle, root = family(leaf=OLD)
    assert refusals(refer(leaf, middle, by=(root,), verified=(root,))) == {"x509.not-after"}
    leaf, middle, root = family(middle=OLD)
    assert refusals(refer(leaf, middle, by=(root,), verified=(root,))) == {"x509.chain-dates"}
    assert refusals(refer(LEAF, INTERMEDIATE, name="dev-02")) == {"x509.common-name"}


# --- What is told -------------------------------------------------------------------------------------------


def test_hostile_names_stay_on_their_line_and_out_of_commands():
    name = "$(reboot)\n\x1b[31m<script>"
    ca = issue(name, is_ca=True)
    forged = issue(name, is_ca=True, key=ec_key("forger"))
    alias = x509.SubjectAlternativeName([x509.DNSName("\x1b$(reboot)")])
    leaf = issue(name, ca, extensions=[(alias, False)])
    for presented in ((leaf, ca), (leaf,), (leaf, forged), (ca,), (forged, leaf), (leaf, leaf)):
        for one in (group(name, ca), group(name, forged), LINE_A):
            for verified in ((), (ca,)):
                for check in attest(*presented, groups=[one], verified=verified, name=name, now=NOW).checks:
                    assert check.detail.isprintable()
                    assert check.fix.isprintable()
                    assert "reboot" not in check.fix


def test_what_cannot_be_read_in_the_trust_is_left_out():
    broken = X509Trust([X509Group("broken", True, (b"garbage",))], [CaCertificate("broken", b"garbage", True)])
    judged = attest_x509_group((L, b"garbage"), broken, NAME, NOW)
    assert judged.group_id is None
    assert verdict(judged.checks) is CaCertificateNotFoundError


def test_a_changed_certificate_is_not_the_one_that_is_trusted():
    other = changed(ROOT, lambda fields: [fields[0], b"\x02\x01\x05", *fields[2:]])
    judged = attest(LEAF, INTERMEDIATE, other, groups=[group("plant", other)], verified=[ROOT])
    assert judged.group_id == "plant"
    assert refusals(judged.checks) == set()
