import json
import os
import resource
import stat
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typer.testing import CliRunner

from muster.cli import cert
from muster.cli.failure import CommandError
from muster.pki.certificate import parse_certificate, read_certificates
from tests.support import fix_pki


def run(*arguments, text=None):
    """Run ``muster cert``; an error that the user is to see is raised, as the real command line catches it."""
    result = CliRunner().invoke(cert.app, [str(argument) for argument in arguments], input=text)
    if isinstance(result.exception, CommandError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def make(directory, *options, name="dev-01", text=None):
    return run("device", name, "--key", "ec-p256", "--directory", directory, *options, text=text)


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


# --- muster cert device -------------------------------------------------------------------------------------


def test_device_writes_a_certificate_and_its_key(tmp_path):
    result = make(tmp_path)
    assert result.exit_code == 0
    certificate, key = tmp_path / "dev-01.pem", tmp_path / "dev-01.key"
    facts = parse_certificate(read_certificates(certificate.read_bytes())[0])
    assert (facts.subject, facts.is_ca, facts.extended_key_usage) == ("CN=dev-01", False, ("clientAuth",))
    assert load_pem_private_key(key.read_bytes(), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev-01.key", "dev-01.pem"]
    for text in (str(certificate), str(key), "not encrypted", facts.sha1_thumbprint, facts.sha256_thumbprint):
        assert text in result.stdout
    assert result.stdout.endswith(f"\nNext: muster enrollment create --certificate {certificate}\n")


def test_device_makes_rsa_4096_by_default():
    """Not made here: that takes seconds, and ``operations/test_rsa_certificates.py`` does."""
    assert "[default: rsa-4096]" in run("device", "--help").stdout


def test_device_writes_into_the_working_directory_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("device", "dev-01", "--key", "ec-p256").exit_code == 0
    assert (tmp_path / "dev-01.pem").exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_device_key_is_private_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        make(tmp_path)
    finally:
        os.umask(before)
    assert mode(tmp_path / "dev-01.key") == 0o600
    assert mode(tmp_path / "dev-01.pem") == 0o644 & ~umask


def test_device_makes_the_directory(tmp_path):
    make(tmp_path / "new" / "certs")
    assert (tmp_path / "new" / "certs" / "dev-01.key").exists()


def test_device_quotes_the_next_command_for_the_shell(tmp_path):
    result = make(tmp_path / "my certs")
    assert result.stdout.endswith(f"--certificate '{tmp_path}/my certs/dev-01.pem'\n")


def test_device_as_json(tmp_path):
    document = json.loads(make(tmp_path, "-o", "json", "--days", "30").stdout)
    assert document["certificate"] == str(tmp_path / "dev-01.pem")
    assert document["key"] == str(tmp_path / "dev-01.key")
    assert (document["keyEncrypted"], document["commonName"], document["version"]) == (False, "dev-01", 3)
    assert document["next"].startswith("muster enrollment create")
    assert "PRIVATE" not in json.dumps(document)


@pytest.mark.parametrize("present", [["dev-01.pem"], ["dev-01.key"], ["dev-01.pem", "dev-01.key"]])
def test_device_never_overwrites(tmp_path, present):
    for name in present:
        (tmp_path / name).write_text("precious")
    with pytest.raises(CommandError, match=r"already$") as caught:
        make(tmp_path)
    assert all(str(tmp_path / name) in caught.value.message for name in present)
    assert "--force" in caught.value.advice
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(present)
    assert all((tmp_path / name).read_text() == "precious" for name in present)


def test_device_does_not_follow_a_dangling_link(tmp_path):
    (tmp_path / "dev-01.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CommandError, match="exists already"):
        make(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_device_replaces_with_force(tmp_path):
    (tmp_path / "dev-01.pem").write_text("old")
    (tmp_path / "dev-01.key").write_text("old")
    (tmp_path / "dev-01.key").chmod(0o644)
    (tmp_path / ".dev-01.key.new").write_text("left behind by a crash")
    assert make(tmp_path, "--force").exit_code == 0
    assert load_pem_private_key((tmp_path / "dev-01.key").read_bytes(), None)
    assert mode(tmp_path / "dev-01.key") == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev-01.key", "dev-01.pem"]


def test_device_does_not_replace_a_directory(tmp_path):
    (tmp_path / "dev-01.pem").mkdir()
    (tmp_path / "dev-01.key").write_text("old")
    with pytest.raises(CommandError, match=r"dev-01\.pem exists already"):
        make(tmp_path, "--force")
    assert (tmp_path / "dev-01.key").read_text() == "old"


@contextmanager
def full_disk():
    """No file may grow while this lasts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_device_leaves_nothing_behind_when_it_cannot_write(tmp_path):
    """The key has less than 300 bytes, the certificate more."""
    with full_disk(), pytest.raises(CommandError, match=r"cannot write .*: File too large"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_device_keeps_the_old_files_until_the_new_ones_are_written(tmp_path):
    make(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with full_disk(), pytest.raises(CommandError, match="cannot write"):
        make(tmp_path, "--force")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_device_says_when_the_directory_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match=r"cannot write .*file.*: "):
        make(tmp_path / "file" / "certs")


@pytest.mark.parametrize("name", ["a/b", "..\\x", "a b", "$(x)", ""])
def test_device_refuses_names_that_are_no_registration_ids(tmp_path, name):
    with pytest.raises(CommandError, match="cannot be a registration id"):
        make(tmp_path, name=name)
    assert list(tmp_path.iterdir()) == []


def test_device_refuses_names_that_no_certificate_can_have(tmp_path):
    with pytest.raises(CommandError, match="65 characters; a common name has at most 64"):
        make(tmp_path, name="x" * 65)


def test_device_refuses_days_that_end_nowhere(tmp_path):
    with pytest.raises(CommandError, match="beyond the year 9999"):
        make(tmp_path, "--days", "9999999")
    assert make(tmp_path, "--days", "0").exit_code == 2


def encrypted_with(tmp_path, pass_phrase):
    key = (tmp_path / "dev-01.key").read_bytes()
    assert b"ENCRYPTED" in key
    return load_pem_private_key(key, pass_phrase.encode()) is not None


def test_device_takes_a_pass_phrase(tmp_path):
    result = make(tmp_path, "--pass-phrase", "1234-secret")
    assert encrypted_with(tmp_path, "1234-secret")
    assert "1234-secret" not in result.output
    assert "(encrypted, stays on the device)" in result.stdout


@pytest.mark.parametrize("content", ["1234", "1234\n", "1234\r\n", "1234\nsecond line"])
def test_device_takes_the_pass_phrase_from_a_file(tmp_path, content):
    file = tmp_path / "phrase"
    file.write_bytes(content.encode())
    make(tmp_path, "--pass-phrase-file", file)
    assert encrypted_with(tmp_path, "1234")


def test_device_asks_for_the_pass_phrase_twice(tmp_path):
    result = make(tmp_path, "--ask", text="1234-secret\n1234-secret\n")
    assert encrypted_with(tmp_path, "1234-secret")
    assert "1234-secret" not in result.output


@pytest.mark.parametrize(("content", "reason"), [("", "pass phrase is empty"), ("\n1234", "pass phrase is empty")])
def test_device_refuses_an_empty_pass_phrase_file(tmp_path, content, reason):
    (tmp_path / "phrase").write_text(content)
    with pytest.raises(CommandError, match=reason):
        make(tmp_path, "--pass-phrase-file", tmp_path / "phrase")


def test_device_refuses_an_empty_pass_phrase(tmp_path):
    with pytest.raises(CommandError, match="pass phrase is empty"):
        make(tmp_path, "--pass-phrase", "")


def test_device_says_when_the_pass_phrase_cannot_be_read(tmp_path):
    with pytest.raises(CommandError, match=r"cannot read .*: No such file"):
        make(tmp_path, "--pass-phrase-file", tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CommandError, match="not UTF-8"):
        make(tmp_path, "--pass-phrase-file", tmp_path / "binary")


def test_device_takes_only_one_pass_phrase(tmp_path):
    result = make(tmp_path, "--pass-phrase", "1", "--ask")
    assert result.exit_code == 2
    assert "only one of" in result.output


# --- muster cert inspect ------------------------------------------------------------------------------------


def inspect(identity, directory, *options):
    certificate, _ = identity.write(directory)
    return run("inspect", certificate, *options)


def inspection(identity, directory, *options):
    result = inspect(identity, directory, "-o", "json", *options)
    document = json.loads(result.stdout)
    assert result.exit_code == (0 if document["accepted"] else 1)
    return document


def outcomes(document):
    return {check["id"]: check["outcome"] for check in document["checks"] if check["outcome"] != "passed"}


def test_inspect_accepts_a_good_certificate(tmp_path):
    result = inspect(fix_pki.self_signed(), tmp_path)
    assert result.exit_code == 0
    facts = parse_certificate(fix_pki.self_signed().certificate)
    for text in ("CN=dev-01 (self-signed)", "days left", facts.sha1_thumbprint, facts.sha256_thumbprint, "EC P-256"):
        assert text in result.stdout
    assert result.stdout.endswith("\nDPS accepts it.\n")
    assert "Fix" not in result.stdout


def test_inspect_accepts_what_cert_device_made(tmp_path):
    make(tmp_path)
    assert run("inspect", tmp_path / "dev-01.pem").exit_code == 0


def test_inspect_refuses_an_expired_certificate_and_says_why(tmp_path):
    result = inspect(fix_pki.expired(), tmp_path)
    assert result.exit_code == 1
    assert "✗ x509.not-after" in result.stdout
    assert "10 days ago" in result.stdout
    assert "muster cert device dev-01 --force" in result.stdout
    assert result.stdout.endswith("\nDPS refuses it: 401002 Invalid certificate.\n")


def test_inspect_warns_and_accepts(tmp_path):
    document = inspection(fix_pki.ca_leaf(), tmp_path)
    assert document["accepted"]
    assert outcomes(document) == {"x509.extended-key-usage": "warned", "x509.basic-constraints": "warned"}


def test_inspect_judges_for_another_registration_id(tmp_path):
    document = inspection(fix_pki.self_signed(), tmp_path, "--registration-id", "dev-02")
    assert outcomes(document) == {"x509.common-name": "refused"}
    assert (document["registrationId"], document["answer"]) == ("dev-02", "401002 Invalid certificate.")


def test_inspect_refuses_a_certificate_without_a_name(tmp_path):
    nameless = fix_pki.Identity(fix_pki.make_certificate(None, key=fix_pki.ec_key()), fix_pki.ec_key())
    assert outcomes(inspection(nameless, tmp_path)) == {
        "registration-id.rules": "refused",
        "x509.common-name": "refused",
    }


def test_inspect_does_not_speak_of_an_enrollment(tmp_path):
    ids = {check["id"] for check in inspection(fix_pki.self_signed(), tmp_path)["checks"]}
    assert ids.isdisjoint({"x509.thumbprint", "x509.certificate-presented"})


def test_inspect_shows_every_certificate_of_a_chain(tmp_path):
    result = inspect(fix_pki.chain_leaf(), tmp_path)
    assert result.exit_code == 0
    for text in ("device.pem (1 of 3)", "device.pem (3 of 3)", "CN=Plant Root (self-signed)"):
        assert text in result.stdout
    document = inspection(fix_pki.chain_leaf(), tmp_path)
    assert [one["subjectName"] for one in document["certificates"]] == [
        "CN=dev-01",
        "CN=Line A Intermediate",
        "CN=Plant Root",
    ]


def test_inspect_as_json_has_the_facts(tmp_path):
    (facts,) = inspection(fix_pki.self_signed(), tmp_path)["certificates"]
    assert (facts["commonName"], facts["selfSigned"], facts["keyAlgorithm"], facts["curve"]) == (
        "dev-01",
        True,
        "EC",
        "P-256",
    )


def test_inspect_reads_der_and_odd_certificates(tmp_path):
    file = tmp_path / "device.cer"
    for identity in (fix_pki.version_1(), fix_pki.rsa_1024_sha1()):
        file.write_bytes(identity.certificate)
        assert run("inspect", file).exit_code == 0


def test_inspect_shows_dates_that_cannot_be_read(tmp_path):
    certificate = fix_pki.make_certificate("dev-01", key=fix_pki.ec_key(), not_before=0, not_after=fix_pki.DAY)
    file = tmp_path / "device.cer"
    file.write_bytes(certificate.replace(b"700102000000Z", b"701302000000Z"))
    result = run("inspect", file)
    assert result.exit_code == 1
    assert "Valid until        : 0001-01-01 00:00:00Z\n" in result.stdout


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", "neither PEM nor base64"),
        (fix_pki.self_signed().key_pem, "no certificate, but PRIVATE KEY"),
        (b"\x30\x03abc", "not an X.509 certificate"),
    ],
)
def test_inspect_says_what_a_file_is_not(tmp_path, content, reason):
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(CommandError, match=reason) as caught:
        run("inspect", file)
    assert str(file) in caught.value.message
    assert "not the key" in caught.value.advice


def test_inspect_says_when_there_is_no_file(tmp_path):
    with pytest.raises(CommandError, match=r"cannot read .*none: No such file"):
        run("inspect", tmp_path / "none")
    with pytest.raises(CommandError, match="Is a directory"):
        run("inspect", tmp_path)


@pytest.mark.parametrize("form", ["table", "json"])
def test_inspect_does_not_let_a_certificate_control_the_terminal(tmp_path, form):
    name = "\x1b]0;evil\x07\n\x1b[2J"
    hostile = fix_pki.Identity(fix_pki.make_certificate(name, key=fix_pki.ec_key()), fix_pki.ec_key())
    text = inspect(hostile, tmp_path, "-o", form).stdout
    assert text.replace("\n", "").isprintable()
