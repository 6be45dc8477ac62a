"""The command line against a running server: what people and scripts do with it."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.fix_pki import root
from tests.support.fix_server import (
    DEVELOPMENT_KEY,
    ID_SCOPE,
    REPOSITORY,
    SDK_PYTHON,
    MusterServer,
    clean_environment,
    free_address,
)

DEVICE_PROGRAM = REPOSITORY / "examples" / "tutorial_device" / "device.py"


def make_certificate(server, name, place="certificates"):
    """A certificate and its key in the server's directory; gives the certificate's file."""
    server.cli("cert", "device", name, "--key", "ec-p256", "--directory", place)
    return str(server.directory / place / f"{name}.pem")


def run_device(server, name, certificate, *, check=True):
    """The tutorial's device: registers and sends one message."""
    settings = server.directory / f"{name}.env"
    settings.write_text(
        f"DPS_HOST={server.address}\nDPS_SCOPEID={ID_SCOPE}\nDPS_REGISTRATIONID={name}\nX509_CERT_FILE={certificate}\n"
        f"X509_KEY_FILE={Path(certificate).with_suffix('.key')}\nSSL_CERT_FILE={server.data_directory / 'trust.pem'}\n"
    )
    result = subprocess.run(
        [str(SDK_PYTHON), str(DEVICE_PROGRAM), str(settings)],
        capture_output=True,
        text=True,
        timeout=240,
        env=clean_environment(),
        check=False,
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


def failure(server, *arguments, code=1):
    """What a command that must fail says on standard error; never a stack trace."""
    result = server.cli(*arguments, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result.stderr


def run_from_elsewhere(directory, ca_file, connection_string):
    """``muster device list`` without a data directory: all it has is a connection string and a CA."""
    return subprocess.run(
        [sys.executable, "-m", "muster", "device", "list", "--connection-string", connection_string],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=directory,
        env=clean_environment(MUSTER_CA_FILE=str(ca_file)),
        check=False,
    )


class TestEnrollment:
    def test_creating_prints_what_the_cmdlet_prints(self, muster):
        certificate = make_certificate(muster, "enroll-1")
        lines = muster.cli("enrollment", "create", "--certificate", certificate, "--tag", "site=A").stdout.splitlines()
        rows = dict(line.split(" : ", 1) for line in lines if " : " in line)
        rows = {name.strip(): value for name, value in rows.items()}
        assert rows["RegistrationId"] == "enroll-1"
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", rows["Created"])
        assert rows["Last Updated"] == rows["Created"]
        assert rows["ETag"]
        assert json.loads(rows["Initial Twin State"]) == {"tags": {"site": "A"}, "properties": {"desired": {}}}

    def test_one_that_exists_is_not_overwritten_unasked(self, muster):
        certificate = make_certificate(muster, "enroll-2")
        first = muster.cli_json("enrollment", "create", "--certificate", certificate)
        error = failure(muster, "enrollment", "create", "--certificate", certificate, "--disabled")
        assert "enrollment enroll-2 exists already" in error
        assert "--update" in error
        assert muster.cli_json("enrollment", "show", "enroll-2")["etag"] == first["etag"]
        second = muster.cli_json("enrollment", "create", "--certificate", certificate, "--disabled", "--update")
        assert second["provisioningStatus"] == "disabled"
        assert second["etag"] != first["etag"]

    def test_a_change_keeps_what_it_does_not_name(self, muster):
        certificate = make_certificate(muster, "enroll-3")
        other = make_certificate(muster, "enroll-3", "second")
        muster.cli("enrollment", "create", "--certificate", certificate, "--device-id", "press-7", "--desired", "x=1")
        before = muster.cli_json("enrollment", "show", "enroll-3")
        after = muster.cli_json("enrollment", "update", "enroll-3", "--disable", "--secondary-certificate", other)
        certificates = after["attestation"]["x509"]["clientCertificates"]
        assert certificates["primary"] == before["attestation"]["x509"]["clientCertificates"]["primary"]
        assert certificates["secondary"]["info"]["subjectName"] == "CN=enroll-3"
        assert (after["provisioningStatus"], after["deviceId"]) == ("disabled", "press-7")
        assert after["initialTwin"] == before["initialTwin"]

    def test_a_change_of_something_that_changed_meanwhile_is_refused(self, muster):
        certificate = make_certificate(muster, "enroll-4")
        old = muster.cli_json("enrollment", "create", "--certificate", certificate)["etag"]
        muster.cli("enrollment", "update", "enroll-4", "--disable")
        assert "412" in failure(muster, "enrollment", "update", "enroll-4", "--enable", "--etag", old)
        assert "412" in failure(muster, "enrollment", "delete", "enroll-4", "--etag", old)

    def test_deleting(self, muster):
        certificate = make_certificate(muster, "enroll-5")
        muster.cli("enrollment", "create", "--certificate", certificate)
        muster.cli("enrollment", "delete", "enroll-5")
        assert "404201" in failure(muster, "enrollment", "show", "enroll-5")
        assert "404201" in failure(muster, "enrollment", "delete", "enroll-5")

    def test_the_list_has_everyone(self, muster):
        certificate = make_certificate(muster, "enroll-6")
        names = {f"enroll-6-{number}" for number in range(3)}
        for name in names:
            muster.cli("enrollment", "create", "--certificate", certificate, "--registration-id", name)
        listed = {document["registrationId"] for document in muster.cli_json("enrollment", "list")}
        assert names <= listed
        table = muster.cli("enrollment", "list").stdout.splitlines()
        assert table[0].split("  ")[0] == "RegistrationId"
        assert len(table) == len(listed) + 1
        assert len(muster.cli_json("enrollment", "list", "--top", "2")) == 2

    def test_another_common_name_is_warned_of(self, muster):
        certificate = make_certificate(muster, "enroll-7")
        result = muster.cli("enrollment", "create", "--certificate", certificate, "--registration-id", "another-7")
        assert "a device with this certificate is refused" in result.stderr
        assert (
            "x509.common-name"
            in muster.cli("cert", "inspect", certificate, "--registration-id", "another-7", check=False).stdout
        )


class TestDevice:
    def test_its_life(self, muster):
        made = muster.cli_json("device", "create", "pump-1")
        assert made["authentication"]["type"] == "sas"
        key = made["authentication"]["symmetricKey"]["primaryKey"]
        assert key not in muster.cli("device", "show", "pump-1").stdout
        string = muster.cli("device", "connection-string", "pump-1").stdout.strip()
        assert string == f"HostName={muster.address};DeviceId=pump-1;SharedAccessKey={key}"
        assert "pump-1" in muster.cli("device", "list").stdout.split()
        assert "DeviceAlreadyExists" in failure(muster, "device", "create", "pump-1")
        muster.cli("device", "delete", "pump-1", "--etag", made["etag"])
        assert "DeviceNotFound" in failure(muster, "device", "delete", "pump-1")

    def test_one_with_certificates(self, muster):
        certificate = make_certificate(muster, "pump-2")
        made = muster.cli_json("device", "create", "pump-2", "--auth", "selfSigned", "--certificate", certificate)
        facts = muster.cli_json("cert", "inspect", certificate)["certificates"][0]
        assert made["authentication"]["x509Thumbprint"]["primaryThumbprint"] == facts["sha256Thumbprint"]
        assert muster.cli("device", "connection-string", "pump-2").stdout.strip().endswith("DeviceId=pump-2;x509=true")

    def test_changing_one(self, muster):
        made = muster.cli_json("device", "create", "pump-3")
        keys = made["authentication"]["symmetricKey"]
        changed = muster.cli_json("device", "update", "pump-3", "--disable", "--status-reason", "sold")
        assert (changed["status"], changed["statusReason"]) == ("disabled", "sold")
        assert changed["authentication"] == made["authentication"]
        stale = failure(muster, "device", "update", "pump-3", "--enable", "--etag", made["etag"])
        assert "PreconditionFailed" in stale
        assert muster.cli_json("device", "update", "pump-3", "--enable")["status"] == "enabled"
        swapped = muster.cli_json("device", "regenerate-key", "pump-3", "--key", "swap")
        assert swapped["authentication"]["symmetricKey"]["primaryKey"] == keys["secondaryKey"]
        string = muster.cli("device", "connection-string", "pump-3", "--secondary").stdout.strip()
        assert string.endswith(f"SharedAccessKey={keys['primaryKey']}")
        by_ca = muster.cli_json("device", "update", "pump-3", "--auth", "certificateAuthority")
        assert by_ca["authentication"]["type"] == "certificateAuthority"
        assert "has no symmetric keys" in failure(muster, "device", "regenerate-key", "pump-3")

    def test_edge_devices_and_modules(self, muster):
        gate = muster.cli_json("device", "create", "gate-1", "--edge")
        leaf = muster.cli_json("device", "create", "leaf-1", "--parent", "gate-1")
        assert leaf["deviceScope"] == gate["deviceScope"]
        assert muster.cli_json("device", "update", "leaf-1", "--parent", "").get("deviceScope") is None
        assert "is no IoT Edge device" in failure(muster, "device", "create", "leaf-2", "--parent", "leaf-1")
        assert "$edgeHub" in muster.cli("module", "list", "gate-1").stdout
        made = muster.cli_json("module", "create", "gate-1", "gauge", "--managed-by", "me")
        key = made["authentication"]["symmetricKey"]["primaryKey"]
        assert key not in muster.cli("module", "show", "gate-1", "gauge").stdout
        string = muster.cli("module", "connection-string", "gate-1", "gauge").stdout.strip()
        assert string == f"HostName={muster.address};DeviceId=gate-1;ModuleId=gauge;SharedAccessKey={key}"
        changed = muster.cli_json("module", "update", "gate-1", "gauge", "--managed-by", "")
        assert (changed["managedBy"], changed["authentication"]) == (None, made["authentication"])
        muster.cli("module", "regenerate-key", "gate-1", "gauge")
        muster.cli("module", "delete", "gate-1", "gauge")
        assert "ModuleNotFound" in failure(muster, "module", "show", "gate-1", "gauge")

    def test_export_and_import(self, muster, tmp_path):
        muster.cli("device", "create", "moved-1")
        muster.cli("module", "create", "moved-1", "gauge")
        file = tmp_path / "devices.json"
        muster.cli("device", "export", str(file))
        assert file.stat().st_mode & 0o777 == 0o600
        items = [item for item in json.loads(file.read_text()) if item["id"] == "moved-1"]
        file.write_text(json.dumps(items))
        key = items[0]["authentication"]["symmetricKey"]["primaryKey"]
        again = muster.cli("device", "import", str(file), check=False)
        assert (again.returncode, "DeviceAlreadyExists" in again.stdout) == (1, True)
        muster.cli("device", "delete", "moved-1")
        assert muster.cli_json("device", "import", str(file)) == {"written": 2, "errors": []}
        assert muster.cli_json("device", "show", "moved-1")["authentication"]["symmetricKey"]["primaryKey"] == key
        assert [module["moduleId"] for module in muster.cli_json("module", "list", "moved-1")] == ["gauge"]
        muster.cli("device", "import", str(file), "--update")

    def test_more_are_exported_than_one_answer_lists(self, start_server, tmp_path):
        server = start_server()
        names = [f"many-{number}" for number in range(1003)]
        devices = [{"id": name, "status": "enabled", "authentication": {"type": "sas"}} for name in names]
        # Among the ids, in their order, the last one.
        module = {"id": "many-999", "moduleId": "gauge", "authentication": {"type": "sas"}}
        file = tmp_path / "many.json"
        file.write_text(json.dumps([*devices, module]))
        assert server.cli_json("device", "import", str(file)) == {"written": 1004, "errors": []}
        server.cli("device", "export", str(file))
        written = json.loads(file.read_text())
        assert [(item["id"], item.get("moduleId")) for item in written if item.get("moduleId")] == [
            ("many-999", "gauge")
        ]
        assert sorted(item["id"] for item in written if not item.get("moduleId")) == sorted(names)
        assert all(item["authentication"]["symmetricKey"]["primaryKey"] for item in written)

    def test_ca_certificates_of_the_hub(self, muster, tmp_path):
        hub = muster.cli_json("hub", "list")[0]["name"]
        certificate = tmp_path / "plant.pem"
        certificate.write_bytes(root().certificate_pem)
        made = muster.cli_json("certificate", "upload", str(certificate), "--verify", "--hub", hub)
        assert made["properties"]["isVerified"] is True
        assert made["type"] == "Microsoft.Devices/IotHubs/Certificates"
        assert "plant" not in [one["name"] for one in muster.cli_json("certificate", "list")]
        assert "plant" in [one["name"] for one in muster.cli_json("certificate", "list", "--hub", hub)]
        muster.cli("certificate", "delete", "plant", "--hub", hub)

    def test_awkward_ids_travel_whole(self, muster):
        name = "a%2F#?+'=b"
        assert muster.cli_json("device", "create", name)["deviceId"] == name
        assert muster.cli_json("device", "show", name)["deviceId"] == name
        muster.cli("device", "delete", name)


@pytest.fixture(scope="module")
def sent(muster):
    """A device that registered and sent three messages, one for each run."""
    certificate = make_certificate(muster, "sender-1")
    muster.cli("enrollment", "create", "--certificate", certificate)
    outputs = [run_device(muster, "sender-1", certificate).stdout for _ in range(3)]
    return [json.loads(re.search(r"^Sent message \S+: (.*)$", output, re.MULTILINE)[1]) for output in outputs]


class TestEventsAndWhy:
    def test_stored_events_are_listed(self, muster, sent):
        events = muster.cli_json("events", "list", "--device", "sender-1")
        assert [event["body"] for event in events] == sent
        lines = muster.cli("events", "list", "--device", "sender-1").stdout.splitlines()
        assert [json.loads(line.split("  ", 3)[3]) for line in lines] == sent

    @pytest.mark.usefixtures("sent")
    def test_a_list_can_start_in_the_middle(self, muster):
        first, second, _ = muster.cli_json("events", "list", "--device", "sender-1")
        arguments = ["--partition", str(first["partition"]), "--from", str(second["sequenceNumber"])]
        later = muster.cli_json("events", "list", "--device", "sender-1", *arguments)
        assert later[0]["sequenceNumber"] == second["sequenceNumber"]
        assert len(muster.cli_json("events", "list", "--device", "sender-1", "--top", "1")) == 1

    def test_the_past_can_be_followed(self, muster, sent):
        arguments = ["events", "tail", "--device", "sender-1", "--from", "earliest", "--count", "3", "-o", "json"]
        lines = muster.cli(*arguments).stdout.splitlines()
        assert [json.loads(line)["body"] for line in lines] == sent

    @pytest.mark.usefixtures("sent")
    def test_the_registration_is_shown(self, muster):
        record = muster.cli_json("registration", "show", "sender-1")
        assert (record["status"], record["assignedHub"]) == ("assigned", muster.address)
        muster.cli("registration", "delete", "sender-1")
        assert "404202" in failure(muster, "registration", "show", "sender-1")

    def test_a_refusal_is_explained_by_every_id(self, muster):
        enrolled = make_certificate(muster, "stranger-1")
        other = make_certificate(muster, "stranger-1", "other")
        muster.cli("enrollment", "create", "--certificate", enrolled)
        refused = run_device(muster, "stranger-1", other, check=False)
        assert refused.returncode == 1
        assert "401" in refused.stderr
        reports = muster.cli_json("why", "stranger-1")
        failed = {check["id"] for check in reports[0]["checks"] if check["outcome"] == "refused"}
        assert failed == {"x509.thumbprint"}
        by_tracking_id = muster.cli("why", reports[0]["trackingId"]).stdout
        assert "Azure answers   401002 Invalid certificate." in by_tracking_id
        assert "✗ x509.thumbprint" in by_tracking_id
        assert "muster enrollment update stranger-1 --certificate" in by_tracking_id
        assert reports[0]["trackingId"] in muster.cli("why").stdout

    def test_an_id_nobody_knows(self, muster):
        assert "no report knows nobody-9" in failure(muster, "why", "nobody-9")

    def test_a_wrong_policy_is_told_with_a_report(self, muster):
        error = failure(muster, "enrollment", "list", "--connection-string", muster.hub_connection_string)
        tracking_id = re.search(r"`muster why (\S+)` tells more", error)[1]
        assert "sas.policy" in muster.cli("why", tracking_id).stdout

    def test_a_wrong_key_is_told_without_a_stack_trace(self, muster):
        string = (
            f"HostName={muster.address};SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0LXNlY3JldC1zZWNyZXQ="
        )
        error = failure(muster, "device", "list", "--connection-string", string)
        assert "401002" in error or "Unauthorized" in error
        assert "c2VjcmV0" not in error


class TestFollowing:
    def start_tail(self, server, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "muster", "events", "tail", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=server.directory,
            env=clean_environment(MUSTER_DATA_DIR=str(server.data_directory)),
            # A shell starts its background jobs with Ctrl-C ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        )
        assert process.stderr.readline() == "following events (Ctrl-C ends)\n"
        return process

    def test_ctrl_c_is_clean(self, muster):
        process = self.start_tail(muster)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=90)
        assert (process.returncode, output, error) == (130, "", "")

    def test_a_reader_that_goes_away_is_no_reason_for_a_stack_trace(self, muster):
        certificate = make_certificate(muster, "tail-1")
        muster.cli("enrollment", "create", "--certificate", certificate)
        process = self.start_tail(muster, "--device", "tail-1")
        run_device(muster, "tail-1", certificate)
        assert "tail-1" in process.stdout.readline()
        process.stdout.close()
        run_device(muster, "tail-1", certificate)
        error = process.stderr.read()
        process.stderr.close()
        assert process.wait(90) == 1
        assert error == ""

    @pytest.mark.timeout(120)
    def test_it_ends_with_its_reader_and_not_with_the_next_event(self, muster):
        process = self.start_tail(muster)
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 1
        assert error == ""

    def test_it_goes_on_after_the_server_was_away(self, start_server):
        server = start_server()
        certificate = make_certificate(server, "tail-2")
        server.cli("enrollment", "create", "--certificate", certificate)
        process = self.start_tail(server, "--device", "tail-2", "--count", "2", "-o", "json")
        first = run_device(server, "tail-2", certificate).stdout
        server.stop()
        server.start()
        second = run_device(server, "tail-2", certificate).stdout
        output, _ = process.communicate(timeout=150)
        assert process.returncode == 0
        ids = [json.loads(line)["systemProperties"]["message-id"] for line in output.splitlines()]
        assert ids == [re.search(r"^Sent message (\S+):", text, re.MULTILINE)[1] for text in (first, second)]


class TestStatusAndTrust:
    def test_status_for_programs(self, muster):
        status = muster.cli_json("status")
        assert status["running"] is True
        assert status["provisioningService"]["idScope"] == status["idScope"] == ID_SCOPE
        assert DEVELOPMENT_KEY in status["hubs"][0]["connectionString"]

    def test_status_for_shells(self, muster, tmp_path):
        file = tmp_path / "settings"
        file.write_text(muster.cli("status", "-o", "env").stdout)
        script = f'. {file}; printf "%s\\n" "$DPS_HOST" "$DPS_SCOPEID" "$IOTHUB_CONNECTION_STRING"'
        result = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
        assert result.stdout.splitlines() == [muster.address, ID_SCOPE, muster.hub_connection_string]

    def test_env_makes_other_programs_trust_the_server(self, muster):
        script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).status)"
        url = f"https://{muster.address}/muster/v1/status"
        shell = f'eval "$({sys.executable} -m muster env)"; exec {sys.executable} -c {shlex.quote(script)} {url}'
        environment = clean_environment(MUSTER_DATA_DIR=str(muster.data_directory))
        result = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, env=environment, check=True)
        assert result.stdout == "200\n"
        distrusted = subprocess.run(
            [sys.executable, "-c", script, url], capture_output=True, text=True, env=clean_environment(), check=False
        )
        assert "CERTIFICATE_VERIFY_FAILED" in distrusted.stderr

    def test_the_nearest_directory_is_found_from_below(self, tmp_path):
        server = MusterServer(tmp_path, free_address())
        server.data_directory = tmp_path / ".muster"
        server.start()
        try:
            below = tmp_path / "a" / "b"
            below.mkdir(parents=True)
            result = subprocess.run(
                [sys.executable, "-m", "muster", "status", "-o", "json"],
                capture_output=True,
                text=True,
                timeout=120,
                cwd=below,
                env=clean_environment(),
                check=True,
            )
            assert json.loads(result.stdout)["pid"] == server.pid
        finally:
            server.stop()

    def test_a_server_that_was_killed_is_told_as_gone(self, start_server):
        server = start_server()
        server.kill()
        error = failure(server, "status")
        assert f"nothing answers on https://{server.address}:443" in error
        assert "`muster up`" in error

    def test_a_clock_far_ahead_does_not_matter(self, start_server):
        server = start_server("--clock", "+400d")
        assert server.cli_json("device", "list") == []
        string = server.hub_connection_string
        result = run_from_elsewhere(server.directory, server.ca_file, string)
        assert result.returncode == 0, result.stderr
        assert "400 days ahead" in server.output

    def test_another_ca_is_not_trusted(self, muster, start_server):
        other = start_server()
        result = run_from_elsewhere(other.directory, other.ca_file, muster.hub_connection_string)
        assert result.returncode == 1
        assert "is not trusted" in result.stderr
        assert "MUSTER_CA_FILE" in result.stderr


def test_a_server_with_a_name_is_managed_without_that_name_in_dns(tmp_path):
    """The commands reach it by its address and verify it by its name; its output holds no secret."""
    server = NamedServer(tmp_path, free_address())
    server.start()
    try:
        secrets = re.findall(r"(?:SharedAccessKey|token)=([^\s\";]+)", json.dumps(server.status))
        assert server.status["hubs"][0]["host"] == "plant.invalid"
        assert server.cli_json("device", "list") == []
        shown = server.cli("status").stdout
        assert len(secrets) == 4, "of the provisioning service, of the hub and of its events, and the portal's"
        for secret in secrets:
            assert secret in shown
            assert secret not in server.output
    finally:
        assert server.stop() == 0


class NamedServer(MusterServer):
    """One for a network, with a name that no resolver knows."""

    def command(self):
        up = [sys.executable, "-m", "muster", "up", "--host-name", "plant.invalid", "--listen", self.address]
        return [*up, "--data-dir", str(self.data_directory)]

    def start(self):
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.directory, env=clean_environment()
            )
        self._wait_until_ready(time.monotonic())
        return self
