import pytest

from muster.ca_directory import CaDirectory
from muster.cli.ca_revocation import Reason
from muster.cli.failure import CommandError
from muster.pki.certificate import parse_certificate, read_certificates
from muster.pki.revocation import REASONS, read_revocation_lists
from tests.support.fix_ca import openssl


@pytest.fixture
def fleet(plant):
    plant.run("issue --prefix dev- --count 2")
    return plant


def serial(commands, name):
    return parse_certificate(read_certificates(commands.read(f"{name}.pem"))[0]).serial_number


def revoked(commands, name="line-a"):
    issued = CaDirectory(commands.path / "ca").authority(name).issued()
    return {one.name: one.revocation.reason for one in issued if one.revocation is not None}


def test_every_reason_can_be_chosen():
    assert tuple(Reason) == REASONS


def test_revoke(fleet):
    result = fleet.run("revoke dev-01 --reason keyCompromise")
    assert revoked(fleet) == {"dev-01": "keyCompromise"}
    assert f"revoked dev-01, serial number {serial(fleet, 'dev-01')}, reason keyCompromise" in result.stdout
    assert result.stdout.endswith("\nNext: muster ca crl --issuer line-a\n")


def test_revoke_by_serial_number_as_json(fleet):
    (document,) = fleet.json(f"revoke {serial(fleet, 'dev-02')}")
    assert (document["name"], document["state"], document["light"]) == ("dev-02", "revoked", "red")
    assert document["revoked"]["reason"] == "unspecified"


def test_revoke_a_ca(fleet):
    fleet.run("revoke line-a --reason cACompromise")
    assert revoked(fleet, "plant") == {"line-a": "cACompromise"}


def test_one_of_several(fleet):
    fleet.run("issue dev-01 --force")
    with pytest.raises(CommandError, match="has 2 certificates") as caught:
        fleet.run("revoke dev-01")
    assert "--all" in caught.value.advice
    fleet.run(f"revoke {serial(fleet, 'dev-01')}")
    fleet.run("revoke dev-01")
    with pytest.raises(CommandError, match="revoked already"):
        fleet.run("revoke dev-01")


def test_a_hold_is_lifted(fleet):
    fleet.run("revoke dev-01 --reason certificateHold")
    fleet.run("crl")
    result = fleet.run("unhold dev-01")
    assert f"lifted the hold of dev-01, serial number {serial(fleet, 'dev-01')}\n" in result.stdout
    assert result.stdout.endswith("\nNext: muster ca crl --issuer line-a\n")
    assert revoked(fleet) == {}
    fleet.run("crl")
    (signed,) = read_revocation_lists(fleet.read("ca/line-a/crl.pem"))
    assert (signed.number, signed.revocations) == (2, {})
    fleet.run("revoke dev-01 --reason certificateHold")
    assert fleet.json(f"unhold {serial(fleet, 'dev-01')}")[0]["state"] == "active"


def test_a_hold_becomes_final_since_its_first_day(fleet):
    fleet.run("revoke dev-01 --reason certificateHold")
    authority = CaDirectory(fleet.path / "ca").authority("line-a")
    held = next(one.revocation for one in authority.issued() if one.name == "dev-01")
    with pytest.raises(CommandError, match="revoked already"):
        fleet.run("revoke dev-01 --reason certificateHold")
    fleet.run("revoke dev-01 --reason keyCompromise")
    final = next(one.revocation for one in authority.issued() if one.name == "dev-01")
    assert (final.reason, final.time) == ("keyCompromise", held.time)
    with pytest.raises(CommandError, match="it is revoked, reason keyCompromise") as caught:
        fleet.run("unhold dev-01")
    assert "certificateHold" in caught.value.advice
    authority.lift([final.serial_number], final.time)
    assert revoked(fleet) == {"dev-01": "keyCompromise"}, "nor does a line in the journal take it back"


@pytest.mark.parametrize(("name", "reason"), [("dev-01", "it is not revoked"), ("nobody", "has issued")])
def test_what_is_not_on_hold(fleet, name, reason):
    with pytest.raises(CommandError, match=reason):
        fleet.run(f"unhold {name}")


def test_all_holds_of_a_name(fleet):
    fleet.run("issue dev-01 --force")
    fleet.run("revoke dev-01 --all --reason certificateHold")
    with pytest.raises(CommandError, match="has 2 certificates"):
        fleet.run("unhold dev-01")
    assert len(fleet.json("unhold dev-01 --all")) == 2


def test_a_new_certificate_is_meant_before_an_old_one_on_hold(fleet):
    old = serial(fleet, "dev-01")
    fleet.run("revoke dev-01 --reason certificateHold")
    fleet.run("issue dev-01 --force")
    fleet.run("revoke dev-01 --reason keyCompromise")
    issued = CaDirectory(fleet.path / "ca").authority("line-a").issued()
    reasons = {f"{one.serial_number:X}": one.revocation.reason for one in issued if one.revocation is not None}
    assert reasons.pop(old.lstrip("0")) == "certificateHold"
    assert list(reasons.values()) == ["keyCompromise"]


def test_all_of_a_name(fleet):
    fleet.run("issue dev-01 --force")
    assert len(fleet.json("revoke dev-01 --all")) == 2


def test_which_ca_issued_it(fleet):
    fleet.run("intermediate line-b")
    fleet.run("issue dev-01 --issuer line-b --force")
    with pytest.raises(CommandError, match="by several CAs: line-a, line-b"):
        fleet.run("revoke dev-01")
    fleet.run("revoke dev-01 --issuer line-b")
    assert (revoked(fleet), revoked(fleet, "line-b")) == ({}, {"dev-01": "unspecified"})


@pytest.mark.parametrize("name", ["nobody", "plant", "00"])
def test_what_cannot_be_revoked(fleet, name):
    with pytest.raises(CommandError, match="has issued"):
        fleet.run(f"revoke {name}")


def test_crl(fleet):
    fleet.run("revoke dev-01 --reason superseded")
    result = fleet.run("crl --out line.crl")
    (signed,) = read_revocation_lists(fleet.read("line.crl"))
    assert (signed.issuer_name, signed.number, len(signed.revocations)) == ("CN=line-a", 1, 1)
    assert signed.next_update - signed.this_update == 30 * 86_400_000_000
    assert fleet.read("ca/line-a/crl.pem") == fleet.read("line.crl")
    for text in ("number 1 of line-a", "ca/line-a/crl.pem", "line.crl"):
        assert text in result.stdout
    with pytest.raises(CommandError, match="exists already"):
        fleet.run("crl --out line.crl")


def test_crl_of_another_ca_in_der_as_json(fleet):
    fleet.run("crl --issuer plant --days 7")
    document = fleet.json("crl --issuer plant --out root.crl --format der")
    assert (document["issuer"], document["number"], document["revoked"]) == ("plant", 2, 0)
    assert document["files"] == ["ca/plant/crl.pem", "root.crl"]
    assert fleet.read("root.crl")[:1] == b"\x30"


def test_openssl_honours_the_list(fleet):
    fleet.run("revoke dev-01")
    fleet.run("crl")
    fleet.run("crl --issuer plant")
    (fleet.path / "all.crl").write_bytes(fleet.read("ca/line-a/crl.pem") + fleet.read("ca/plant/crl.pem"))
    options = ("-x509_strict", "-crl_check_all", "-CRLfile", "all.crl", "-CAfile", "ca/plant/plant.pem")
    told = {
        name: openssl("verify", *options, "-untrusted", f"{name}.fullchain.pem", f"{name}.pem")
        for name in ("dev-01", "dev-02")
    }
    assert b"certificate revoked" in told["dev-01"].stderr
    assert told["dev-02"].stdout == b"dev-02.pem: OK\n"


def test_crl_needs_the_key(commands):
    commands.run("init plant --pass-phrase 1234")
    commands.run("crl --ca-pass-phrase 1234")
    with pytest.raises(CommandError, match="needs a pass phrase"):
        commands.run("crl")
