"""What ``muster cert doctor`` and ``muster allocation preview`` print; the server's part is tested with a server."""

import json

import pytest
from typer.testing import CliRunner

from muster.cli import cert, doctor
from muster.cli.allocation import preview_rows
from muster.cli.doctor import diagnosis_text, read_chain
from muster.cli.failure import CommandError, UnreachableError
from muster.cli.output import record_text
from tests.support import fix_pki

FOUND = {
    "registrationId": "pump-01",
    "enrollment": {"kind": "group", "id": "line-a"},
    "decides": {"kind": "individual", "id": "pump-01"},
    "verdict": "refused",
    "answer": "401002 CA certificate not found.",
    "credential": "X.509 certificate CN=pump-01",
    "checks": [{"id": "x509.chain", "outcome": "refused", "detail": "broken", "fix": "send all"}],
}

HUB = {"name": "h", "hostName": "h.example.net", "allocationWeight": 2, "latencyMilliseconds": 1.5}


def no_server(connection_string, data_directory):
    raise UnreachableError("nothing answers")


def test_a_diagnosis_says_what_decides_and_what_to_do():
    text = diagnosis_text(FOUND)
    assert text.startswith("REFUSED  register pump-01\n  judged by       enrollment group line-a\n")
    assert "  Azure answers   401002 CA certificate not found.\n" in text
    assert "    x509.chain: send all\n" in text
    assert text.endswith("In reality individual enrollment pump-01 decides about this device.")
    assert "In reality" not in diagnosis_text({**FOUND, "decides": FOUND["enrollment"]})


def test_without_a_server_the_certificate_alone_is_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "connect", no_server)
    for identity, code in ((fix_pki.self_signed(), 0), (fix_pki.expired(), 1)):
        file, _ = identity.write(tmp_path)
        result = CliRunner().invoke(cert.app, ["doctor", str(file)])
        assert result.exit_code == code
        assert "judged by       the certificate alone" in result.stdout
        assert "No server answers" in result.stdout
    result = CliRunner().invoke(cert.app, ["doctor", str(file), "--at", "2000-01-01T00:00:00Z", "-o", "json"])
    refused = [check["id"] for check in json.loads(result.stdout)["checks"] if check["outcome"] == "refused"]
    assert refused == ["x509.not-before"]


def test_an_enrollment_cannot_be_judged_by_without_a_server(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "connect", no_server)
    file, _ = fix_pki.self_signed().write(tmp_path)
    result = CliRunner().invoke(cert.app, ["doctor", str(file), "--group", "line-a"])
    assert isinstance(result.exception, UnreachableError)
    assert CliRunner().invoke(cert.app, ["doctor", str(file), "--at", "tomorrow"]).exit_code == 2


def test_a_chain_is_read_in_the_order_of_the_files(tmp_path):
    files = []
    for number, content in enumerate((fix_pki.chain_leaf().certificate_pem, fix_pki.root().certificate)):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(content)
    assert read_chain(files) == [fix_pki.chain_leaf().certificate, fix_pki.root().certificate]
    with pytest.raises(CommandError, match="cannot read"):
        read_chain([tmp_path / "none"])


def test_a_preview_has_the_hub_and_the_reason_first():
    found = {
        "hub": HUB,
        "reason": "policy hashed: chosen",
        "answer": "",
        "deviceId": "pump-01",
        "enrollment": {"kind": "group", "id": "line-a"},
        "provisioningStatus": "enabled",
        "policy": "hashed",
        "currentHub": None,
        "candidates": [HUB],
    }
    assert record_text(preview_rows(found)).split("\n") == [
        "Hub        : h.example.net",
        "Reason     : policy hashed: chosen",
        "DeviceId   : pump-01",
        "Enrollment : group line-a, enabled",
        "Policy     : hashed",
        "Candidates : h.example.net (weight 2, 1.5 ms)",
    ]
    refused = {**found, "hub": None, "reason": "", "answer": "400210 No IoT hubs available.", "candidates": []}
    assert record_text(preview_rows(refused)).startswith("Hub        :\nReason     : 400210 No IoT hubs available.\n")


def test_revocation_lists_are_asked(plant, monkeypatch):
    monkeypatch.setattr(doctor, "connect", no_server)
    plant.run("issue dev-01")
    runs = [CliRunner().invoke(cert.app, ["doctor", "dev-01.pem", "--crl", "ca"])]
    plant.run("revoke dev-01 --reason keyCompromise")
    plant.run("crl")
    runs.append(CliRunner().invoke(cert.app, ["doctor", "dev-01.pem", "--crl", "ca"]))
    assert [run.exit_code for run in runs] == [0, 1]
    assert "401002 Invalid certificate." in runs[1].stdout
    assert "reason keyCompromise, by list 1" in runs[1].stdout
    broken = CliRunner().invoke(cert.app, ["doctor", "dev-01.pem", "--crl", "nothing"])
    assert isinstance(broken.exception, CommandError)
    assert "nothing cannot be read: No such file or directory" in str(broken.exception)


def test_what_the_server_refuses_stays_refused(plant, monkeypatch):
    """Its lists may say more than those that are named here."""
    plant.run("issue dev-01")
    refused = {"id": "x509.revocation", "outcome": "refused", "detail": "by the server's list"}
    current = {"id": "x509.revocation-list", "outcome": "passed", "detail": ""}
    found = {**FOUND, "answer": "401002 Invalid certificate.", "checks": [refused, current]}
    chain = read_chain([plant.path / "dev-01.pem"])
    doctor.add_revocation(found, doctor.read_revocations([plant.path / "ca"]), chain, None)
    assert found["checks"] == [refused, current]
