import pytest

from muster.cli.banner import describe_offset, render_banner
from tests.unit.cli.statuses import SECRET_KEY, WELL_KNOWN_KEY, secret_status, status_document


def test_the_first_hour_is_on_it():
    text = render_banner(status_document())
    for wanted in (
        "Muster 0.1.0 is ready",
        "SQLite in /srv/project/.muster",
        "0ne00DE5EED",
        "http://localhost:8080/",
        "127.0.0.1: 8883 MQTT",
        "/srv/project/.muster/ca.pem",
        'eval "$(muster env)"',
        "muster tutorial",
        f"HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey={WELL_KNOWN_KEY}",
        f"Endpoint=sb://localhost/;SharedAccessKeyName=service;SharedAccessKey={WELL_KNOWN_KEY};EntityPath=iothub-ehub",
        f"HostName=localhost;SharedAccessKeyName=provisioningserviceowner;SharedAccessKey={WELL_KNOWN_KEY}",
    ):
        assert wanted in text
    assert "\n! " not in text


def test_keys_that_are_secret_are_not_printed():
    text = render_banner(secret_status())
    assert SECRET_KEY not in text
    assert "SharedAccessKey" not in text
    assert "`muster status` shows the connection strings" in text


def test_devices_on_a_network_are_told_what_they_need():
    assert "Elsewhere, plant.example must lead to this machine" in render_banner(secret_status())
    assert "Elsewhere" not in render_banner(status_document())


@pytest.mark.parametrize("missing", [{"wellKnownIdentity": None}, {"wellKnownIdentity": False}])
def test_only_a_clear_yes_makes_keys_well_known(missing):
    assert "SharedAccessKey" not in render_banner(status_document(**missing))


def test_the_start_token_of_the_portal_is_a_secret_too():
    text = render_banner(secret_status(portal="http://plant.example:8080/?token=5ec2e7"))
    assert "5ec2e7" not in text
    assert "http://plant.example:8080/ (`muster status` shows it with its start token)" in text


def test_a_refused_port_443_says_who_loses_what_and_how_to_fix_it():
    text = render_banner(status_document(httpsPort=8443))
    assert "! Port 443 was refused" in text
    assert "WebSocket" in text
    assert "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443" in text


def test_a_missing_ipv6_loopback_is_a_notice_where_localhost_is_the_name():
    assert "! ::1 is not served" in render_banner(status_document(addresses=["127.0.0.1"]))
    assert "::1" not in render_banner(secret_status())


def test_a_shifted_clock_is_a_notice():
    text = render_banner(status_document(clockOffsetSeconds=400 * 86400))
    assert "! The clock of this server is 400 days ahead." in text


@pytest.mark.parametrize(
    "seconds, wanted",
    [(400 * 86400, "400 days ahead"), (-7200, "2:00:00 behind"), (86400 + 1800, "1 day, 0:30:00 ahead")],
)
def test_offsets_in_words(seconds, wanted):
    assert describe_offset(seconds) == wanted


def test_commands_find_a_data_directory_of_another_name():
    text = render_banner(status_document("/srv/my data"))
    assert "eval \"$(muster env --data-dir '/srv/my data')\"" in text
    assert "muster why --data-dir '/srv/my data'" in text


def test_commands_find_an_ephemeral_server_by_themselves():
    text = render_banner(status_document("/run/user/1000/muster-abc", persistence="ephemeral, in memory"))
    assert "--data-dir" not in text
