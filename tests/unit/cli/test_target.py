import os
from pathlib import Path

import pytest

from muster.cli.failure import CommandError
from muster.cli.target import Access, find_status, find_target, parse_connection_string, split_host
from tests.unit.cli.statuses import SECRET_KEY, WELL_KNOWN_KEY, connection_string, secret_status, write_status

PLANT = connection_string("plant.example", "service", SECRET_KEY)


def target(directory: Path, *, string=None, data=None, **environment):
    # An own runtime directory: no server of the person who runs the tests must be found.
    environment.setdefault("XDG_RUNTIME_DIR", str(directory / "runtime"))
    return find_target(string, data, environment=environment, working_directory=directory)


@pytest.fixture(autouse=True)
def no_servers_in_the_temporary_directory(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))


class TestConnectionString:
    def test_parts_come_in_any_order_and_case(self):
        access, port = parse_connection_string(
            f"sharedaccesskey={SECRET_KEY}; HOSTNAME=plant.example ;SharedAccessKeyName=service;"
        )
        assert access == Access("plant.example", "service", SECRET_KEY)
        assert port is None

    def test_a_port_in_the_host_name_is_honoured(self):
        access, port = parse_connection_string(connection_string("plant.example:8443", "service"))
        assert (access.host, port) == ("plant.example", 8443)

    @pytest.mark.parametrize(
        "text, wanted",
        [
            ("HostName=h;SharedAccessKeyName=p", "lacks SharedAccessKey"),
            ("", "lacks HostName and SharedAccessKeyName and SharedAccessKey"),
            ("plant.example", "without '='"),
            (f"HostName=h;DeviceId=d;SharedAccessKey={SECRET_KEY}", "of a device"),
            ("HostName=h;SharedAccessKeyName=p;SharedAccessKey=not base64!", "not base64"),
            (connection_string("h:port", "p"), "'h:port' is not a host name"),
            (connection_string("h:70000", "p"), "'h:70000' is not a host name"),
        ],
    )
    def test_what_is_wrong_is_named_and_the_key_is_not(self, text, wanted):
        with pytest.raises(CommandError) as caught:
            parse_connection_string(text)
        assert wanted in caught.value.message
        assert "HostName=" in caught.value.advice
        assert SECRET_KEY not in caught.value.message + caught.value.advice

    @pytest.mark.parametrize(
        "text, wanted",
        [
            ("localhost", ("localhost", None)),
            ("localhost:8443", ("localhost", 8443)),
            ("::1", ("::1", None)),
            ("[::1]", ("::1", None)),
            ("[::1]:8443", ("::1", 8443)),
        ],
    )
    def test_hosts(self, text, wanted):
        assert split_host(text) == wanted


class TestSearch:
    def test_without_anything_it_is_the_development_identity(self, tmp_path):
        found = target(tmp_path)
        assert found.provisioning == Access("localhost", "provisioningserviceowner", WELL_KNOWN_KEY)
        assert found.hub == Access("localhost", "iothubowner", WELL_KNOWN_KEY)
        assert found.endpoints == (("localhost", 443), ("localhost", 8443))
        assert found.ca_file is None

    def test_muster_ca_file_is_the_trust_of_a_server_without_a_status_file(self, tmp_path):
        assert target(tmp_path, MUSTER_CA_FILE="/etc/plant.pem").ca_file == Path("/etc/plant.pem")

    def test_the_nearest_status_file_upwards_wins(self, tmp_path):
        write_status(tmp_path / ".muster", clockOffsetSeconds=5)
        write_status(tmp_path / "a" / ".muster", clockOffsetSeconds=7, httpsPort=8443)
        below = tmp_path / "a" / "b" / "c"
        below.mkdir(parents=True)
        found = target(below)
        assert found.clock_offset == 7
        assert found.endpoints == (("127.0.0.1", 8443), ("::1", 8443))
        assert found.ca_file == tmp_path / "a" / ".muster" / "ca.pem"
        assert found.origin == str(tmp_path / "a" / ".muster" / "status.json")

    def test_a_named_data_directory_wins_over_the_nearest(self, tmp_path):
        write_status(tmp_path / ".muster", clockOffsetSeconds=5)
        write_status(tmp_path / "other", clockOffsetSeconds=7)
        assert target(tmp_path, data=tmp_path / "other").clock_offset == 7
        assert target(tmp_path, MUSTER_DATA_DIR=str(tmp_path / "other")).clock_offset == 7

    def test_a_named_directory_without_a_server_is_an_error(self, tmp_path):
        with pytest.raises(CommandError, match="no server runs on") as caught:
            target(tmp_path, data=tmp_path / "none")
        assert f"muster up --data-dir {tmp_path / 'none'}" in caught.value.advice

    def test_the_option_wins_over_everything(self, tmp_path):
        write_status(tmp_path / ".muster")
        found = target(tmp_path, string=PLANT, MUSTER_CONNECTION_STRING=connection_string("other", "p"))
        assert found.hub == found.provisioning == Access("plant.example", "service", SECRET_KEY)
        assert found.endpoints == (("plant.example", 443),)
        assert found.ca_file is None

    def test_the_variable_wins_over_the_nearest(self, tmp_path):
        write_status(tmp_path / ".muster")
        assert target(tmp_path, MUSTER_CONNECTION_STRING=PLANT).hub.host == "plant.example"

    def test_a_named_data_directory_wins_over_the_variable(self, tmp_path):
        write_status(tmp_path / "other")
        found = target(tmp_path, data=tmp_path / "other", MUSTER_CONNECTION_STRING=PLANT)
        assert found.hub.host == "localhost"

    def test_a_connection_string_of_the_server_nearby_uses_its_ca_and_clock(self, tmp_path):
        write_status(tmp_path / ".muster", clockOffsetSeconds=86400)
        found = target(tmp_path, string=connection_string("localhost", "registryRead", SECRET_KEY))
        assert found.hub.policy == "registryRead"
        assert found.ca_file == tmp_path / ".muster" / "ca.pem"
        assert found.clock_offset == 86400
        assert found.endpoints[0] == ("127.0.0.1", 443)

    def test_every_hub_of_the_server_nearby_is_known(self, tmp_path):
        hubs = [
            {"name": name, "host": host, "connectionString": connection_string(host, "iothubowner")}
            for name, host in (("localhost", "localhost"), ("east", "127.0.0.2"))
        ]
        write_status(tmp_path / ".muster", hubs=hubs)
        found = target(tmp_path, string=connection_string("127.0.0.2", "iothubowner"))
        assert (found.hub.host, found.ca_file) == ("127.0.0.2", tmp_path / ".muster" / "ca.pem")

    def test_its_own_port_wins_over_that_of_the_server_nearby(self, tmp_path):
        write_status(tmp_path / ".muster")
        found = target(tmp_path, string=connection_string("localhost:8883", "service"))
        assert found.endpoints == (("127.0.0.1", 8883), ("::1", 8883))

    def test_a_broken_status_file_does_not_matter_with_a_connection_string(self, tmp_path):
        write_status(tmp_path / ".muster")
        (tmp_path / ".muster" / "status.json").write_text("{")
        assert target(tmp_path, string=PLANT).hub.host == "plant.example"

    def test_the_nearest_of_another_user_is_not_taken_unasked(self, tmp_path, monkeypatch):
        write_status(tmp_path / ".muster", clockOffsetSeconds=5)
        mine = os.geteuid()
        monkeypatch.setattr("os.geteuid", lambda: mine + 1)
        with pytest.raises(CommandError, match="written by another user") as caught:
            target(tmp_path)
        assert f"--data-dir {tmp_path / '.muster'}" in caught.value.advice
        assert target(tmp_path, data=tmp_path / ".muster").clock_offset == 5
        assert target(tmp_path, string=PLANT).hub.host == "plant.example"

    @pytest.mark.parametrize("text, wanted", [("{", "not valid JSON"), ("[]", "not a status file"), ("{}", "lacks")])
    def test_a_broken_status_file_is_an_error(self, tmp_path, text, wanted):
        write_status(tmp_path / ".muster")
        (tmp_path / ".muster" / "status.json").write_text(text)
        with pytest.raises(CommandError, match=wanted):
            target(tmp_path)

    def test_a_server_on_every_address_is_reached_by_loopback_under_its_name(self, tmp_path):
        document = secret_status(str(tmp_path / ".muster"))
        write_status(tmp_path / ".muster", **document)
        found = target(tmp_path)
        assert found.endpoints == (("127.0.0.1", 443),)
        assert found.hub.host == "plant.example"


class TestEmptyVariables:
    def test_they_count_as_not_set(self, tmp_path):
        found = target(tmp_path, MUSTER_CONNECTION_STRING="", MUSTER_DATA_DIR="")
        assert found.origin == "the development identity"


class TestEphemeral:
    def test_one_that_runs_is_found(self, tmp_path):
        write_status(tmp_path / "runtime" / "muster-abc", clockOffsetSeconds=3)
        assert target(tmp_path).clock_offset == 3

    def test_also_in_the_temporary_directory(self, tmp_path):
        write_status(tmp_path / "temporary" / "muster-abc", clockOffsetSeconds=3)
        assert target(tmp_path).clock_offset == 3

    def test_one_whose_process_is_gone_is_not(self, tmp_path):
        write_status(tmp_path / "runtime" / "muster-abc", pid=2**22 + 1)
        assert target(tmp_path).origin == "the development identity"

    def test_two_are_a_question(self, tmp_path):
        write_status(tmp_path / "runtime" / "muster-abc")
        write_status(tmp_path / "runtime" / "muster-def")
        with pytest.raises(CommandError, match="2 ephemeral servers") as caught:
            target(tmp_path)
        assert "muster-def" in caught.value.advice

    def test_that_of_another_user_is_not_taken(self, tmp_path, monkeypatch):
        write_status(tmp_path / "runtime" / "muster-abc")
        mine = os.geteuid()
        monkeypatch.setattr("os.geteuid", lambda: mine + 1)
        assert target(tmp_path).origin == "the development identity"

    def test_no_server_is_none(self, tmp_path):
        environment = {"XDG_RUNTIME_DIR": str(tmp_path / "runtime")}
        assert find_status(None, environment=environment, working_directory=tmp_path) is None
