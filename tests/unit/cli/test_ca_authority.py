import stat

import pytest
from cryptography import x509

from muster.ca_directory import CaDirectory
from muster.cli.failure import CommandError
from muster.pki.certificate import parse_certificate, read_certificates
from muster.pki.key_store import read_key_store, write_pfx
from muster.pki.private_key import make_key, read_private_key, write_private_key
from tests.support import fix_ca, fix_pki
from tests.support.fix_ca import openssl

DAY = 86_400_000_000


def facts(commands, name):
    return parse_certificate(read_certificates(commands.read(f"ca/{name}/{name}.pem"))[0])


def extension(commands, name, kind):
    certificate = x509.load_pem_x509_certificate(commands.read(f"ca/{name}/{name}.pem"))
    return certificate.extensions.get_extension_for_class(kind).value


def authority(commands, name):
    return CaDirectory(commands.path / "ca").authority(name)


# --- init ---------------------------------------------------------------------------------------------------


def test_init_makes_a_root(commands):
    result = commands.run("init")
    read = facts(commands, "root")
    assert (read.subject, read.issuer, read.is_ca, read.curve) == ("CN=root", "CN=root", True, "P-384")
    for text in ("ca/root/root.pem", "private.key (not encrypted)", "CA:TRUE", "Next: muster ca intermediate line-a"):
        assert text in result.stdout
    assert stat.S_IMODE((commands.path / "ca/root").stat().st_mode) == 0o700
    assert [one.name for one in authority(commands, "root").issued()] == ["root"]


def test_init_as_json(commands):
    document = commands.json("init plant --pass-phrase 1234")
    assert (document["name"], document["keyEncrypted"], document["isCa"]) == ("plant", True, True)
    assert (commands.path / document["certificate"]).exists()


def test_init_follows_its_options(commands):
    options = (
        "--key ed25519 --days 10 --path-length 1 --permit DNS:plant.example --permit IP:10.0.0.0/8 --exclude DN:O=X"
    )
    commands.run(f"init plant {options} --ca-dir ca --subject", "CN=Plant Root, O=Contoso, C=NL")
    read = facts(commands, "plant")
    assert (read.subject, read.key_algorithm) == ("CN=Plant Root, O=Contoso, C=NL", "Ed25519")
    assert read.not_after - read.not_before == 11 * DAY
    assert extension(commands, "plant", x509.BasicConstraints).path_length == 1
    limits = extension(commands, "plant", x509.NameConstraints)
    assert limits.permitted_subtrees[0].value == "plant.example"
    assert len(limits.excluded_subtrees) == 1


def test_a_subject_without_a_common_name_gets_the_name(commands):
    commands.run("init plant --subject O=Contoso")
    assert facts(commands, "plant").subject == "CN=plant, O=Contoso"


@pytest.mark.parametrize("how", ["option", "file", "asked"])
def test_the_key_is_encrypted(commands, how):
    (commands.path / "secret").write_text("1234\n")
    options = {"option": "--pass-phrase 1234", "file": "--pass-phrase-file secret", "asked": "--ask"}
    result = commands.run(f"init plant {options[how]}", text="1234\n1234\n")
    assert "private.key (encrypted)" in result.stdout
    assert read_private_key(commands.read("ca/plant/private.key"), "1234")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("init plant", "there is a CA 'plant'"),
        ("init a/b", "cannot be the name of a CA"),
        ("init other --profile device", "is not one for CAs"),
        ("init other --profile roots", "did you mean 'root-ca'"),
        ("init other --permit x", "is no limit of names"),
        ("init other --subject x", "is no part of a subject"),
        ("init other --days 9999999", "beyond the year 9999"),
        ("init other --pass-phrase=", "is empty"),
        ("init other --renew", "there is no CA 'other'"),
    ],
)
def test_why_there_is_no_root(commands, command, reason):
    commands.run("init plant")
    with pytest.raises(CommandError, match=reason):
        commands.run(command)
    assert [one.name for one in CaDirectory(commands.path / "ca").authorities()] == ["plant"]


@pytest.mark.parametrize(
    "command",
    [
        "init --import-key x",
        "init --import x --renew",
        "init --import x --days 3",
        "init --import x --key ed25519",
        "init --renew --key ed25519",
        "init --pass-phrase 1 --ask",
        "init --days 0",
        "init --key rsa-1024",
    ],
)
def test_wrong_usage_of_init(commands, command):
    assert commands.run(command).exit_code == 2


def test_a_root_is_replaced_with_force(commands):
    commands.run("init plant")
    before = facts(commands, "plant")
    commands.run("init plant --force")
    assert facts(commands, "plant").serial_number != before.serial_number
    assert (commands.path / f"ca/replaced/plant-{before.serial_number}/private.key").exists()


def test_a_root_is_renewed(commands):
    commands.run("init plant --days 10 --path-length 1 --permit DNS:x --pass-phrase 1234 --subject", "CN=P,O=C")
    before, limits = facts(commands, "plant"), extension(commands, "plant", x509.NameConstraints)
    commands.run("init plant --renew --pass-phrase 1234 --days 20")
    after = facts(commands, "plant")
    assert (after.subject, after.serial_number == before.serial_number) == (before.subject, False)
    assert after.not_after > before.not_after
    assert extension(commands, "plant", x509.NameConstraints) == limits
    assert extension(commands, "plant", x509.BasicConstraints).path_length == 1
    assert authority(commands, "plant").open("1234")
    assert len(authority(commands, "plant").issued()) == 2


def test_a_root_is_renewed_with_the_pass_phrase_that_is_asked_for(commands):
    commands.run("init plant --pass-phrase 1234")
    result = commands.run("init plant --renew", text="1234\n")
    assert "Pass phrase of the CA 'plant'" in result.output
    with pytest.raises(CommandError, match="is wrong"):
        commands.run("init plant --renew --pass-phrase left")


def test_an_intermediate_is_not_renewed_as_a_root(plant):
    with pytest.raises(CommandError, match="is no root") as caught:
        plant.run("init line-a --renew")
    assert caught.value.advice == "renew it with: muster ca intermediate line-a --renew"


# --- intermediate -------------------------------------------------------------------------------------------


def test_intermediate_makes_a_ca_below_the_root(plant):
    read = facts(plant, "line-a")
    assert (read.subject, read.issuer, read.is_ca) == ("CN=line-a", "CN=plant", True)
    assert extension(plant, "line-a", x509.BasicConstraints).path_length == 0
    assert authority(plant, "line-a").chain[1:] == authority(plant, "plant").chain
    assert [one.name for one in authority(plant, "plant").issued()] == ["plant", "line-a"]


def test_openssl_accepts_it(plant):
    done = openssl("verify", "-x509_strict", "-CAfile", "ca/plant/plant.pem", "ca/line-a/line-a.pem")
    assert done.stdout == b"ca/line-a/line-a.pem: OK\n"


def test_two_pass_phrases(commands):
    commands.run("init plant --pass-phrase root")
    commands.run("intermediate line-a --ca-pass-phrase root --pass-phrase line")
    assert authority(commands, "line-a").open("line")
    commands.run("intermediate line-b", text="root\n")
    assert authority(commands, "line-b").open(None)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("intermediate line-a", "there is a CA 'line-a'"),
        ("intermediate below --issuer line-a", "allows 0 further CAs"),
        ("intermediate other --issuer nobody", "there is no CA 'nobody'"),
        ("intermediate other --days 9000", "its CA 'CN=plant' is from"),
        ("intermediate other --ca-pass-phrase-file missing", "No such file"),
        ("intermediate plant --renew", "the CA 'plant' is a root"),
        ("intermediate nobody --renew", "there is no CA 'nobody'"),
    ],
)
def test_why_there_is_no_intermediate(plant, command, reason):
    with pytest.raises(CommandError, match=reason):
        plant.run(command)
    assert len(authority(plant, "plant").issued()) == 2


def test_which_root_is_to_sign(plant):
    plant.run("init other")
    with pytest.raises(CommandError, match="which CA") as caught:
        plant.run("intermediate line-b")
    assert caught.value.advice == "say --issuer with one of: other, plant"
    plant.run("intermediate line-b --issuer other")
    assert facts(plant, "line-b").issuer == "CN=other"


def test_an_intermediate_that_is_shortened_ends_with_its_root(commands):
    commands.run("init plant --days 10")
    commands.run("intermediate line-a")
    assert facts(commands, "line-a").not_after == facts(commands, "plant").not_after


def test_an_intermediate_is_renewed(plant):
    before, key = facts(plant, "line-a"), plant.read("ca/line-a/private.key")
    plant.run("intermediate line-a --renew --days 20")
    after = facts(plant, "line-a")
    assert (after.subject, after.serial_number == before.serial_number) == (before.subject, False)
    assert plant.read("ca/line-a/private.key") == key
    assert authority(plant, "line-a").open(None)
    assert [one.is_replaced for one in authority(plant, "plant").issued()] == [False, True, False]
    assert plant.run("intermediate line-a --renew --issuer plant").exit_code == 0
    assert plant.run("intermediate line-a --renew --subject x").exit_code == 2
    assert plant.run("intermediate line-a --renew --pass-phrase x").exit_code == 2


def test_a_renewed_ca_keeps_its_profile(plant):
    profiles = plant.path / "ca/profiles.toml"
    profiles.write_text("[own]\nlike = 'intermediate-ca'\ncrl_urls = ['http://x/y']\n")
    plant.run("intermediate line-b --profile own")
    plant.run("intermediate line-b --renew")
    assert extension(plant, "line-b", x509.CRLDistributionPoints)
    profiles.unlink()
    plant.run("intermediate line-b --renew")
    with pytest.raises(x509.ExtensionNotFound):
        extension(plant, "line-b", x509.CRLDistributionPoints)


# --- Adopting -----------------------------------------------------------------------------------------------


ROOT, LINE = fix_ca.root(), fix_ca.intermediate()


def test_a_root_made_elsewhere_is_adopted(commands):
    files = ("-keyout", "old.key", "-out", "old.pem", "-passout", "pass:1234")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=Old Root", "-days", "30", *files)
    commands.run("init old --import old.pem --import-key old.key", text="1234\n")
    assert facts(commands, "old").subject == "CN=Old Root"
    commands.run("intermediate line-a --ca-pass-phrase 1234 --days 5")
    done = openssl("verify", "-CAfile", "old.pem", "ca/line-a/line-a.pem")
    assert done.stdout == b"ca/line-a/line-a.pem: OK\n"
    commands.run("init old --renew --pass-phrase 1234")


def test_a_pfx_file_is_adopted(commands):
    (commands.path / "line.pfx").write_bytes(write_pfx("x", LINE.key, LINE.chain, "1234"))
    commands.run("init line --import line.pfx --pass-phrase 1234")
    stored = authority(commands, "line")
    assert stored.chain == LINE.chain
    assert stored.open("1234")
    assert stored.issued() == []
    with pytest.raises(CommandError, match="the CA above 'line' is not in ca"):
        commands.run("intermediate line --renew")


def test_a_key_without_a_pass_phrase_gets_one(commands):
    (commands.path / "root.pem").write_bytes(fix_ca.to_pem(ROOT.certificate) + write_private_key(ROOT.key))
    commands.run("init root --import root.pem --pass-phrase 1234")
    assert authority(commands, "root").open("1234")


def test_what_stands_above_is_found_in_the_directory(commands):
    for name, ca in (("root", ROOT), ("line", LINE)):
        (commands.path / f"{name}.pem").write_bytes(fix_ca.to_pem(ca.certificate) + write_private_key(ca.key))
        commands.run(f"init {name} --import {name}.pem")
    assert authority(commands, "line").chain == LINE.chain


def test_what_is_not_adopted(commands):
    weak = fix_pki.issue("Weak", key=fix_pki.rsa_key(1024), is_ca=True)
    wide = make_key("ec-p256", fix_ca.entropy())
    contents = {
        "leaf": fix_ca.to_pem(fix_ca.leaf()) + write_private_key(fix_ca.key("dev-01")),
        "other": fix_ca.to_pem(ROOT.certificate) + write_private_key(wide),
        "bare": fix_ca.to_pem(ROOT.certificate),
        "weak": weak.certificate_pem + weak.key_pem,
        "junk": b"junk!",
    }
    for name, content in contents.items():
        (commands.path / name).write_bytes(content)
    for name, reason in (
        ("leaf", "it lacks CA:TRUE"),
        ("other", "belongs to none of the certificates"),
        ("bare", "there is no private key in bare"),
        ("weak", "RSA with 1024 bits"),
        ("junk", "neither PEM"),
        ("missing", "cannot read missing: No such file"),
    ):
        with pytest.raises(CommandError, match=reason):
            commands.run(f"init x --import {name}")
    assert not (commands.path / "ca").exists()
    assert read_key_store(contents["bare"]).key is None
