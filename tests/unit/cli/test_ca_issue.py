import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.ca_directory import CaDirectory
from muster.cli.failure import CommandError
from muster.pki.certificate import parse_certificate, read_certificates
from muster.pki.key_store import belongs, read_key_store
from muster.pki.names import read_subject
from muster.pki.private_key import read_private_key
from tests.support.fix_ca import key, openssl, request

DAY = 86_400_000_000


def certificates(commands, name):
    return read_certificates(commands.read(name))


def facts(commands, name):
    return parse_certificate(certificates(commands, name)[0])


def names(commands, path="."):
    return sorted(one.name for one in (commands.path / path).iterdir())


def journal(commands, name="line-a"):
    return [one.name for one in CaDirectory(commands.path / "ca").authority(name).issued()]


# --- One ----------------------------------------------------------------------------------------------------


def test_issue_writes_certificate_chain_and_key(plant):
    result = plant.run("issue dev-01")
    assert names(plant) == ["ca", "dev-01.fullchain.pem", "dev-01.key", "dev-01.pem"]
    read = facts(plant, "dev-01.pem")
    assert (read.subject, read.issuer, read.is_ca) == ("CN=dev-01", "CN=line-a", False)
    assert (read.extended_key_usage, read.curve) == (("clientAuth",), "P-256")
    assert read.not_after - read.not_before == 366 * DAY
    line = certificates(plant, "ca/line-a/line-a.pem")
    assert certificates(plant, "dev-01.fullchain.pem") == [*certificates(plant, "dev-01.pem"), *line]
    assert belongs(read_private_key(plant.read("dev-01.key")), read.der)
    assert stat.S_IMODE((plant.path / "dev-01.key").stat().st_mode) == 0o600
    for text in ("Issued by line-a, profile device", "dev-01.fullchain.pem", "Next: muster group create line-a"):
        assert text in result.stdout
    assert journal(plant) == ["dev-01"]


def test_openssl_accepts_the_full_chain(plant):
    plant.run("issue dev-01")
    options = ("-x509_strict", "-purpose", "sslclient", "-CAfile", "ca/plant/plant.pem")
    done = openssl("verify", *options, "-untrusted", "dev-01.fullchain.pem", "dev-01.pem")
    assert done.stdout == b"dev-01.pem: OK\n"


def test_issue_follows_its_options(plant):
    plant.run("issue dev-01 --key ed25519 --days 5 --out new/certs --san DNS:DEV-01 --subject", "O=Contoso, C=NL")
    read = facts(plant, "new/certs/dev-01.pem")
    assert (read.subject, read.key_algorithm) == ("CN=dev-01, O=Contoso, C=NL", "Ed25519")
    assert read.not_after - read.not_before == 6 * DAY
    loaded = x509.load_der_x509_certificate(read.der)
    assert loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value[0].value == "DEV-01"


def test_a_kind_of_key_that_devices_cannot_use_everywhere_is_told(plant):
    assert "Note: Ed25519: the real DPS" in plant.run("issue dev-01 --key ed25519").stdout
    assert "Note:" not in plant.run("issue dev-02").stdout


def test_issue_as_json(plant):
    document = plant.json("issue dev-01 --out devices")
    assert (document["issuer"], document["profile"]) == ("line-a", "device")
    (made,) = document["certificates"]
    assert made["files"] == [f"devices/dev-01{suffix}" for suffix in (".pem", ".fullchain.pem", ".key")]
    assert (made["name"], made["commonName"], made["isCa"]) == ("dev-01", "dev-01", False)


def test_a_root_issues_too(commands):
    commands.run("init plant --days 100")
    assert "Note: it ends with its CA" in commands.run("issue dev-01").stdout
    assert len(certificates(commands, "dev-01.fullchain.pem")) == 1
    assert facts(commands, "dev-01.pem").not_after == facts(commands, "ca/plant/plant.pem").not_after


def test_a_server(plant):
    assert "Next:" not in plant.run("issue plant.example --profile server --san IP:10.0.0.1").stdout
    loaded = x509.load_pem_x509_certificate(plant.read("plant.example.pem"))
    found = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one.value) for one in found] == ["plant.example", "10.0.0.1"]


def test_a_proof_of_possession(plant):
    plant.run("issue 75B86466DA34D2B04C0C4C9557A119687ADAE7D4732BDDB3 --profile verification --issuer plant")
    assert facts(plant, "75B86466DA34D2B04C0C4C9557A119687ADAE7D4732BDDB3.pem").issuer == "CN=plant"


def test_a_profile_of_the_user(plant):
    (plant.path / "ca/profiles.toml").write_text("[gateway]\nlike = 'device'\nsubject = 'O=Contoso'\ndays = 3\n")
    plant.run("issue gw-01 --profile gateway")
    assert facts(plant, "gw-01.pem").subject == "CN=gw-01, O=Contoso"


def test_issuing_again_keeps_the_history(plant):
    plant.run("issue dev-01")
    with pytest.raises(CommandError, match="exist already") as caught:
        plant.run("issue dev-01")
    assert "--force" in caught.value.advice
    before = plant.read("dev-01.pem")
    plant.run("issue dev-01 --force")
    assert plant.read("dev-01.pem") != before
    assert journal(plant) == ["dev-01", "dev-01"]


# --- Pass phrases, PFX --------------------------------------------------------------------------------------


def test_a_pfx_file_has_everything(plant):
    (plant.path / "secret").write_text("1234\n")
    plant.run("issue dev-01 --pfx --pass-phrase-file secret")
    found = read_key_store(plant.read("dev-01.pfx"), "1234")
    assert [parse_certificate(one).subject for one in found.certificates] == ["CN=dev-01", "CN=line-a", "CN=plant"]
    assert read_private_key(plant.read("dev-01.key"), "1234")
    assert stat.S_IMODE((plant.path / "dev-01.pfx").stat().st_mode) == 0o600


def test_a_ca_with_a_pass_phrase(commands):
    commands.run("init plant --pass-phrase right")
    commands.run("issue dev-01 --ca-pass-phrase right")
    commands.run("issue dev-02", text="right\n")
    with pytest.raises(CommandError, match="the CA 'plant': the pass phrase is wrong"):
        commands.run("issue dev-03 --ca-pass-phrase left")
    with pytest.raises(CommandError, match="the CA 'plant' needs a pass phrase"):
        commands.run("issue dev-03")
    assert journal(commands, "plant") == ["plant", "dev-01", "dev-02"]


# --- A fleet ------------------------------------------------------------------------------------------------


def test_a_fleet(plant):
    result = plant.run("issue --prefix dev- --count 3 --out devices")
    assert names(plant, "devices")[::3] == ["dev-01.fullchain.pem", "dev-02.fullchain.pem", "dev-03.fullchain.pem"]
    assert journal(plant) == ["dev-01", "dev-02", "dev-03"]
    assert result.stdout.count("fullchain") == 3
    serials = {facts(plant, f"devices/dev-0{number}.pem").serial_number for number in (1, 2, 3)}
    assert len(serials) == 3


def test_a_fleet_goes_on_where_it_was(plant):
    plant.run("issue --prefix dev- --count 2 --start 99 --out devices")
    assert journal(plant) == ["dev-099", "dev-100"]


def test_a_fleet_is_issued_as_a_whole_or_not_at_all(plant):
    with pytest.raises(CommandError, match="does not take the common name"):
        plant.run("issue --count 3 --prefix", "dev ")
    (plant.path / "dev-02.key").write_text("precious")
    with pytest.raises(CommandError, match=r"dev-02\.key exists already"):
        plant.run("issue --count 3 --prefix dev-")
    assert journal(plant) == []
    assert names(plant) == ["ca", "dev-02.key"]


def test_many_files_that_are_there_are_counted(plant):
    plant.run("issue --count 3 --prefix dev-")
    with pytest.raises(CommandError, match=r"dev-01\.key and 6 more exist already"):
        plant.run("issue --count 3 --prefix dev-")


# --- Signing requests ---------------------------------------------------------------------------------------


def write_request(commands, name="dev-01", **options):
    (commands.path / "device.csr").write_bytes(request(name, **options).public_bytes(Encoding.PEM))


def test_sign_csr(plant):
    write_request(plant, subject=read_subject("CN=dev-01, O=Nobody"))
    result = plant.run("sign-csr device.csr --days 7")
    assert names(plant) == ["ca", "dev-01.fullchain.pem", "dev-01.pem", "device.csr"]
    read = facts(plant, "dev-01.pem")
    assert belongs(key("dev-01"), read.der)
    assert (read.subject, read.not_after - read.not_before) == ("CN=dev-01", 8 * DAY)
    assert "dev-01.fullchain.pem" in result.stdout


def test_sign_csr_takes_what_openssl_makes(plant):
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "k", "-subj", "/CN=dev-01", "-out", "device.csr")
    plant.run("sign-csr device.csr")
    done = openssl("verify", "-CAfile", "ca/plant/plant.pem", "-untrusted", "ca/line-a/line-a.pem", "dev-01.pem")
    assert done.stdout == b"dev-01.pem: OK\n"


def test_issue_with_a_request(plant):
    write_request(plant)
    plant.run("issue dev-01 --csr device.csr --subject O=Contoso")
    assert facts(plant, "dev-01.pem").subject == "CN=dev-01, O=Contoso"
    assert not (plant.path / "dev-01.key").exists()


def test_a_request_for_another_name(plant):
    write_request(plant)
    with pytest.raises(CommandError, match=r"it is not signed: .* 'dev-01', and not for 'dev-02'") as caught:
        plant.run("issue dev-02 --csr device.csr")
    assert "CN=dev-02" in caught.value.advice


def test_a_request_that_asks_for_a_ca(plant):
    write_request(plant, extensions=[x509.BasicConstraints(ca=True, path_length=None)])
    with pytest.raises(CommandError, match="asks for CA:TRUE") as caught:
        plant.run("sign-csr device.csr")
    assert "without basicConstraints" in caught.value.advice
    assert journal(plant) == []


def test_requests_that_cannot_be_signed(plant):
    write_request(plant, None)
    with pytest.raises(CommandError, match="has no common name"):
        plant.run("sign-csr device.csr")
    write_request(plant, subject=read_subject("CN=../dev"))
    with pytest.raises(CommandError, match="becomes that of files"):
        plant.run("sign-csr device.csr")
    (plant.path / "device.csr").write_text("junk!")
    with pytest.raises(CommandError, match="neither PEM nor base64"):
        plant.run("sign-csr device.csr")
    with pytest.raises(CommandError, match="cannot read missing"):
        plant.run("sign-csr missing")


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("issue dev/01", "becomes that of files"),
        ("issue .dev", "becomes that of files"),
        ("issue dev-01 --profile root-ca", "is one for CAs"),
        ("issue dev-01 --profile devices", "did you mean 'device'"),
        ("issue dev-01 --days 4000", "its CA 'CN=line-a' is from"),
        ("issue dev-01 --san DNS:other", "does not take the alternative name"),
        ("issue dev-01 --san x,y", "is no DNS name"),
        ("issue dev-01 --subject CN=dev-02", "the common name in --subject is 'dev-02'"),
        ("issue dev-01 --subject x", "is no part of a subject"),
        ("issue dev-01 --issuer nobody", "there is no CA 'nobody'"),
        ("issue dev-01 --ca-dir elsewhere", "there is no CA in elsewhere"),
        ("issue dev-01 --out ca/line-a/line-a.pem", "cannot write"),
    ],
)
def test_what_is_refused(plant, command, reason):
    with pytest.raises(CommandError, match=reason):
        plant.run(command)
    assert names(plant) == ["ca"]


@pytest.mark.parametrize(
    "command",
    [
        "issue",
        "issue dev-01 --prefix dev-",
        "issue dev-01 --count 2",
        "issue dev-01 --pfx",
        "issue dev-01 --csr x --key ed25519",
        "issue dev-01 --csr x --pass-phrase 1",
        "issue --prefix dev- --csr x",
        "issue dev-01 --csr x --pfx",
    ],
)
def test_wrong_usage(plant, command):
    assert plant.run(command).exit_code == 2
    assert journal(plant) == []
