from muster.cli.status import render_variables, status_rows, status_variables
from tests.unit.cli.statuses import (
    EVENT_HUB,
    WELL_KNOWN_KEY,
    event_hub_connection_string,
    secret_status,
    status_document,
)


def test_programs_get_what_the_tutorial_and_the_samples_read():
    variables = status_variables(status_document("/d"))
    assert variables["DPS_HOST"] == variables["PROVISIONING_HOST"] == "localhost"
    assert variables["DPS_SCOPEID"] == variables["IOTHUB_DEVICE_DPS_ID_SCOPE"] == "0ne00DE5EED"
    assert variables["IOTHUB_CONNECTION_STRING"].endswith(f"SharedAccessKey={WELL_KNOWN_KEY}")
    events = event_hub_connection_string("localhost")
    assert variables["EVENT_HUB_CONN_STR"] == variables["EVENTHUB_CONNECTION_STRING"] == events
    assert variables["EVENT_HUB_NAME"] == EVENT_HUB
    assert variables["SSL_CERT_FILE"] == "/d/trust.pem"


def test_what_a_shell_would_split_is_quoted():
    assert render_variables({"A": "plain", "B": "a;b c"}) == "A=plain\nB='a;b c'"


def test_people_see_secrets_when_they_ask_for_the_status():
    rows = dict(status_rows(secret_status(), {"uptimeSeconds": 12.7}))
    assert rows["Hub connection string"] == secret_status()["hubs"][0]["connectionString"]
    assert rows["Events connection string"] == secret_status()["hubs"][0]["eventHubConnectionString"]
    assert rows["Up for"] == "12 s"
    assert "Clock offset" not in rows


def test_a_shifted_clock_is_shown():
    assert ("Clock offset", "60 s") in status_rows(status_document(clockOffsetSeconds=60), {})
