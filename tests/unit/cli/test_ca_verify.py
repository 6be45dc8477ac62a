import json

import pytest
from cryptography import x509

from muster.cli.failure import CommandError
from tests.support import fix_pki
from tests.support.fix_pki import DAY, NOW


@pytest.fixture
def fleet(plant):
    plant.run("issue dev-01")
    return plant


def outcomes(commands, command):
    """What each check says, as the exit code demands it."""
    result = commands.run(f"{command} -o json")
    document = json.loads(result.stdout)
    assert document["verified"] is (result.exit_code == 0)
    return {check["id"].removeprefix("chain."): check for check in document["checks"]}


def refused(commands, command):
    return {
        name: check["detail"] for name, check in outcomes(commands, command).items() if check["outcome"] == "refused"
    }


def test_a_good_chain(fleet):
    result = fleet.run("verify dev-01.fullchain.pem")
    assert result.exit_code == 0
    assert result.stdout.startswith("dev-01.fullchain.pem: verified\n")
    assert "'CN=dev-01' < 'CN=line-a' < 'CN=plant'" in result.stdout
    assert "there is no list for 'CN=dev-01', 'CN=line-a'" in result.stdout
    found = outcomes(fleet, "verify dev-01.fullchain.pem")
    assert list(found) == [
        "complete",
        "dates",
        "ca",
        "path-length",
        "name-constraints",
        "extensions",
        "standard",
        "purpose",
        "revocation",
    ]


@pytest.mark.parametrize("files", ["dev-01.pem ca/line-a/line-a.pem", "dev-01.pem ca/line-a/chain.pem"])
def test_several_files(fleet, files):
    assert fleet.run(f"verify {files}").exit_code == 0


@pytest.mark.parametrize("name", ["plant", "line-a"])
def test_a_ca_is_verified(fleet, name):
    assert refused(fleet, f"verify ca/{name}/{name}.pem --purpose any") == {}


def test_trust_is_chosen(fleet):
    assert fleet.run("verify dev-01.pem --trust ca/line-a/line-a.pem").exit_code == 0
    (fleet.path / "other.pem").write_bytes(fix_pki.root().certificate_pem)
    assert list(refused(fleet, "verify dev-01.fullchain.pem --trust other.pem")) == ["complete"]
    with pytest.raises(CommandError, match="nothing is trusted"):
        fleet.run("verify dev-01.pem --ca-dir elsewhere")


def test_what_is_known_has_to_be_sent_all_the_same(fleet):
    assert refused(fleet, "verify dev-01.pem") == {"complete": "'CN=line-a' is known here, but not in the files"}
    result = fleet.run("verify dev-01.pem")
    assert result.exit_code == 1
    assert "not verified" in result.stdout
    assert "muster ca export NAME --format fullchain" in result.stdout


def write(commands, *identities):
    """The first with those above it goes into ``chain``, the root of all into ``root``."""
    (commands.path / "chain").write_bytes(identities[0].chain_pem)
    (commands.path / "root").write_bytes(fix_pki.to_pem(identities[-1].certificate))


TOP = fix_pki.issue("Top", is_ca=True)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: fix_pki.issue("dev", TOP, not_after=NOW - DAY), {"dates": "'CN=dev' expired on"}),
        (lambda: fix_pki.issue("dev", TOP, not_before=NOW + DAY), {"dates": "'CN=dev' is valid from"}),
        (lambda: fix_pki.issue("dev", fix_pki.issue("Mid", TOP, is_ca=False)), {"ca": "'CN=Mid' is no CA"}),
        (
            lambda: fix_pki.issue(
                "dev", fix_pki.issue("Mid", fix_pki.issue("P", TOP, is_ca=True, path_length=0), is_ca=True)
            ),
            {"path-length": "'CN=P' allows 0 further CAs"},
        ),
        (lambda: fix_pki.issue("dev", TOP, usages=(fix_pki.SERVER_AUTH,)), {"purpose": "for serverAuth"}),
        (
            lambda: fix_pki.issue("dev", fix_pki.issue("Elsewhere", is_ca=True)),
            {"complete": "it ends at 'CN=Elsewhere'"},
        ),
        (fix_pki.self_signed, {"complete": "it ends at 'CN=dev-01'"}),
    ],
)
def test_what_is_wrong_with_a_chain(commands, made, expected):
    write(commands, made(), TOP)
    found = refused(commands, "verify chain --trust root")
    assert {name: found[name][: len(text)] for name, text in expected.items()} == expected
    assert set(found) - set(expected) <= {"complete"}


def test_names_that_a_ca_may_not_certify(plant):
    plant.run("intermediate line-b --permit DNS:plant.example")
    plant.run("issue a.plant.example --profile server --issuer line-b")
    assert plant.run("verify a.plant.example.fullchain.pem --purpose server").exit_code == 0
    limits = x509.NameConstraints([x509.DNSName("x")], None)
    top = fix_pki.issue("Limited", is_ca=True, extensions=[(limits, True)])
    names = x509.SubjectAlternativeName([x509.DNSName("y")])
    write(plant, fix_pki.issue("dev", top, extensions=[(names, False)]), top)
    assert refused(plant, "verify chain --trust root") == {"name-constraints": "'CN=dev' has the name 'y'"}


def test_extensions_that_nobody_knows(commands):
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    write(commands, fix_pki.issue("dev", TOP, extensions=[(odd, True)]), TOP)
    assert "1.2.3.4 is critical" in refused(commands, "verify chain --trust root")["extensions"]


def test_dates_that_cannot_be_read(commands):
    nonsense = fix_pki.element(0x30, 2 * fix_pki.element(0x17, b"nonsense"))
    odd = fix_pki.changed(fix_pki.issue("dev", TOP), lambda fields: [*fields[:4], nonsense, *fields[5:]], TOP)
    (commands.path / "chain").write_bytes(odd.certificate)
    (commands.path / "root").write_bytes(TOP.certificate)
    assert refused(commands, "verify chain --trust root")["dates"] == "'CN=dev' has dates that cannot be read"


def test_a_missing_and_a_wrong_issuer(commands):
    mid = fix_pki.issue("Mid", TOP, is_ca=True)
    write(commands, fix_pki.Identity(fix_pki.issue("dev", mid).certificate, fix_pki.ec_key()), TOP)
    assert refused(commands, "verify chain --trust root")["complete"].startswith("issuer 'CN=Mid' of 'CN=dev'")
    other = fix_pki.issue("Mid", TOP, is_ca=True, key=fix_pki.ec_key("other mid"))
    write(
        commands, fix_pki.Identity(fix_pki.issue("dev", mid).certificate, fix_pki.ec_key(), (other.certificate,)), TOP
    )
    assert "is not signed by the 'CN=Mid'" in refused(commands, "verify chain --trust root")["complete"]


def test_a_chain_that_is_against_the_standard(commands):
    """Nothing that is looked for by name: a CA without a name of its own."""
    top = fix_pki.issue("", is_ca=True, key=fix_pki.ec_key("nameless"), subject=x509.Name([]))
    write(commands, fix_pki.issue("dev", top), top)
    assert list(refused(commands, "verify chain --trust root")) == ["standard"]


# --- Times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "verified"),
    [("+300d", True), ("+400d", False), ("-2d", False), ("2020-01-01", False), ("2020-01-01T12:00Z", False)],
)
def test_at_another_time(fleet, at, verified):
    assert (fleet.run(f"verify dev-01.fullchain.pem --at={at}").exit_code == 0) is verified


def test_no_time(fleet):
    for at in ("noon", "2026-13-01", "+1y"):
        assert fleet.run(f"verify dev-01.pem --at {at}").exit_code == 2


# --- Revocation ---------------------------------------------------------------------------------------------


def test_a_revoked_certificate(fleet):
    fleet.run("revoke dev-01 --reason keyCompromise")
    assert refused(fleet, "verify dev-01.fullchain.pem") == {}
    fleet.run("crl --out line.crl")
    detail = refused(fleet, "verify dev-01.fullchain.pem")["revocation"]
    assert detail.startswith("'CN=dev-01' was revoked on ")
    assert detail.endswith(": keyCompromise")
    trusted = "--ca-dir elsewhere --trust ca/plant/plant.pem"
    assert refused(fleet, f"verify dev-01.fullchain.pem {trusted}") == {}
    assert list(refused(fleet, f"verify dev-01.fullchain.pem {trusted} --crl line.crl")) == ["revocation"]


def test_a_list_that_is_due(fleet):
    fleet.run("crl --days 2")
    shown = fleet.run("verify dev-01.fullchain.pem").stdout
    assert "not on the lists: 'CN=dev-01'; there is no list for 'CN=line-a'\n" in shown
    fleet.run("crl --issuer plant --days 9")
    assert "not on the lists: 'CN=dev-01', 'CN=line-a'\n" in fleet.run("verify dev-01.fullchain.pem").stdout
    result = fleet.run("verify dev-01.fullchain.pem --at +3d")
    assert result.exit_code == 0
    assert "a newer list is due for 'CN=dev-01'\n" in result.stdout
    assert "no CA stands above it" in fleet.run("verify ca/plant/plant.pem").stdout


def test_lists_that_cannot_be_read(fleet):
    (fleet.path / "x.crl").write_text("junk!")
    with pytest.raises(CommandError, match=r"x\.crl: neither PEM"):
        fleet.run("verify dev-01.pem --crl x.crl")


# --- Files --------------------------------------------------------------------------------------------------


def test_a_pfx_file(fleet):
    fleet.run("issue dev-02 --pfx --pass-phrase 1234")
    assert fleet.run("verify dev-02.pfx --pass-phrase 1234").exit_code == 0
    assert fleet.run("verify dev-02.pfx", text="1234\n").exit_code == 0
    with pytest.raises(CommandError, match="is wrong"):
        fleet.run("verify dev-02.pfx --pass-phrase 4321")


def test_files_that_hold_no_certificate(fleet):
    (fleet.path / "junk").write_text("junk!")
    with pytest.raises(CommandError, match="junk: neither PEM"):
        fleet.run("verify junk")
    with pytest.raises(CommandError, match="cannot read missing"):
        fleet.run("verify missing")
