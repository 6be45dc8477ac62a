import stat

import pytest

from muster.cli.failure import CommandError
from muster.pki.certificate import parse_certificate, read_certificates
from muster.pki.key_store import belongs, read_key_store
from tests.support.fix_ca import openssl


def subjects(content):
    return [parse_certificate(one).subject for one in read_certificates(content)]


@pytest.fixture
def fleet(plant):
    plant.run("issue dev-01")
    return plant


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("export plant", ["CN=plant"]),
        ("export line-a", ["CN=line-a"]),
        ("export line-a --format fullchain", ["CN=line-a"]),
        ("export line-a --format bundle", ["CN=line-a", "CN=plant"]),
        ("export dev-01", ["CN=dev-01"]),
        ("export dev-01 --format fullchain", ["CN=dev-01", "CN=line-a"]),
        ("export dev-01 --format bundle", ["CN=dev-01", "CN=line-a", "CN=plant"]),
    ],
)
def test_pem_goes_to_standard_output(fleet, command, expected):
    assert subjects(fleet.run(command).stdout) == expected


def test_export_to_a_file(fleet):
    assert fleet.run("export plant --out root.pem").stdout == "wrote root.pem\n"
    assert fleet.read("root.pem") == fleet.read("ca/plant/plant.pem")
    with pytest.raises(CommandError, match=r"root\.pem exists already"):
        fleet.run("export line-a --out root.pem")
    fleet.run("export line-a --format der --out root.pem --force")
    assert subjects(fleet.read("root.pem")) == ["CN=line-a"]
    assert fleet.read("root.pem")[:1] == b"\x30"


def test_a_serial_number_names_one_of_several(fleet):
    first = fleet.read("dev-01.pem")
    fleet.run("issue dev-01 --force")
    serial = parse_certificate(read_certificates(first)[0]).serial_number
    assert fleet.run(f"export {serial}").stdout.encode() == first
    assert fleet.run("export dev-01").stdout.encode() == fleet.read("dev-01.pem")


def test_pfx_of_a_device(fleet):
    fleet.run("export dev-01 --format pfx --key dev-01.key --out dev-01.pfx --pass-phrase 1234")
    found = read_key_store(fleet.read("dev-01.pfx"), "1234")
    assert len(found.certificates) == 3
    assert belongs(found.key, found.certificates[0])
    assert stat.S_IMODE((fleet.path / "dev-01.pfx").stat().st_mode) == 0o600
    assert openssl("pkcs12", "-in", "dev-01.pfx", "-passin", "pass:1234", "-noout").returncode == 0


def test_pfx_of_a_device_whose_key_is_encrypted(fleet):
    fleet.run("issue dev-02 --pass-phrase key")
    (fleet.path / "secret").write_text("key\n")
    options = "--format pfx --key dev-02.key --pass-phrase 1234"
    fleet.run(f"export dev-02 {options} --out a.pfx --key-pass-phrase-file secret")
    fleet.run(f"export dev-02 {options} --out b.pfx", text="key\n")
    assert read_key_store(fleet.read("b.pfx"), "1234").key is not None


def test_pfx_of_a_ca(commands):
    commands.run("init plant --pass-phrase ca")
    commands.run("export plant --format pfx --out ca.pfx --ca-pass-phrase ca --pass-phrase 1234")
    assert belongs(
        read_key_store(commands.read("ca.pfx"), "1234").key, read_certificates(commands.read("ca/plant/plant.pem"))[0]
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("export nobody", "there is no certificate 'nobody'"),
        ("export dev-01 --format pfx --out x --pass-phrase 1", "is not kept here"),
        ("export dev-01 --format pfx --out x --pass-phrase 1 --key ca/line-a/private.key", "does not belong"),
        ("export dev-01 --format pfx --out x --pass-phrase 1 --key missing", "cannot read missing"),
        ("export dev-01 --format pfx --out x --pass-phrase 1 --key dev-01.pem", "there is no private key in it"),
        ("export dev-01 --out ca/line-a/line-a.pem/x", "cannot write"),
    ],
)
def test_what_is_not_exported(fleet, command, reason):
    with pytest.raises(CommandError, match=reason):
        fleet.run(command)
    assert not (fleet.path / "x").exists()


@pytest.mark.parametrize(
    "command",
    ["export plant --format der", "export plant --format pfx --out x", "export plant --pass-phrase 1"],
)
def test_wrong_usage(fleet, command):
    assert fleet.run(command).exit_code == 2
