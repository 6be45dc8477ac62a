"""Errors over REST: each service's own shape, the tracking id everywhere, and an answer to every kind of nonsense."""

import re
from datetime import UTC, datetime

import pytest
from starlette.requests import ClientDisconnect
from tests.support.fix_rest import DPS_HOST, HUB_HOST, VERSION, Answer, RestClient
from tests.support.fix_services import NOW, Services

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TOO_LARGE = b'"' + b"x" * (1024 * 1024) + b'"'


def require_hub_shape(answer: Answer, status: int, name: str) -> None:
    """Shape A of hub-service.md 1.6."""
    tracking_id = answer.headers["x-ms-request-id"]
    assert GUID.fullmatch(tracking_id)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["iothub-errorcode"] == name
    assert set(answer.json) == {"Message", "ExceptionMessage"}
    code, separator, text = answer.json["Message"].partition(";")
    assert (code, separator) == (f"ErrorCode:{name}", ";")
    assert text
    when = datetime.fromtimestamp(NOW / 1_000_000, UTC).strftime("%m/%d/%Y %H:%M:%S")
    digits = tracking_id.replace("-", "")
    assert answer.json["ExceptionMessage"] == f"Tracking ID:{digits}-G:0-TimeStamp:{when}"


def require_provisioning_shape(answer: Answer, status: int, code: int) -> None:
    """dps.md 1.10."""
    tracking_id = answer.headers["x-ms-request-id"]
    assert GUID.fullmatch(tracking_id)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["x-ms-error-code"] == str(code)
    assert set(answer.json) == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert answer.json["errorCode"] == code
    assert answer.json["trackingId"] == tracking_id
    assert answer.json["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", answer.json["timestampUtc"])


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "name"),
    [
        ("GET", f"/devices/d1?{VERSION}", b"", 404, "DeviceNotFound"),
        ("GET", "/devices/d1", b"", 400, "InvalidProtocolVersion"),
        ("GET", f"/devices/d%00?{VERSION}", b"", 400, "ArgumentInvalid"),
        ("GET", "/devices/d1?api-version=", b"", 400, "InvalidProtocolVersion"),
        ("GET", "/devices/d1?api-version=latest", b"", 400, "InvalidProtocolVersion"),
        ("GET", "/devices/d1?API-VERSION=2021-04-12", b"", 400, "InvalidProtocolVersion"),
        ("PUT", f"/devices/d1?{VERSION}", b"", 400, "ArgumentNull"),
        ("PUT", f"/devices/d1?{VERSION}", b"{", 400, "IotHubFormatError"),
        ("PUT", f"/devices/d1?{VERSION}", b"\xff\xfe", 400, "IotHubFormatError"),
        ("PUT", f"/devices/d1?{VERSION}", b'{"deviceId":"d1","x":' + b"[" * 100_000, 400, "IotHubFormatError"),
        ("PUT", f"/devices/d1?{VERSION}", b"[]", 400, "ArgumentInvalid"),
        ("PUT", f"/devices/d1?{VERSION}", b"null", 400, "ArgumentInvalid"),
        ("PUT", f"/devices/d1?{VERSION}", b'{"deviceId":7}', 400, "ArgumentInvalid"),
        ("PUT", f"/devices/d1?{VERSION}", TOO_LARGE, 413, "MessageTooLarge"),
        ("PATCH", f"/devices/d1?{VERSION}", b"{}", 405, "MethodNotAllowed"),
        ("POST", f"/devices?{VERSION}", b"", 400, "ArgumentNull"),
        ("POST", f"/devices?{VERSION}", b"[{]", 400, "IotHubFormatError"),
        ("POST", f"/devices?{VERSION}", b'[{"importMode":"create"}]', 400, "ArgumentNull"),
        ("DELETE", f"/devices?{VERSION}", b"", 405, "MethodNotAllowed"),
        ("GET", f"/statistics/nothing?{VERSION}", b"", 404, "GenericNotFound"),
        ("GET", f"/devices/d1/modules?{VERSION}", b"", 401, "IotHubUnauthorizedAccess"),
        ("GET", f"/devices/a%2Fb?{VERSION}", b"", 404, "GenericNotFound"),
        ("GET", "/", b"", 404, "GenericNotFound"),
        ("PATCH", f"/devices/registrations?{VERSION}", b"", 405, "MethodNotAllowed"),
        ("OPTIONS", f"/devices/d1?{VERSION}", b"", 405, "MethodNotAllowed"),
    ],
)
async def test_the_hub(rest: RestClient, method: str, target: str, body: bytes, status: int, name: str) -> None:
    require_hub_shape(await rest.request(method, target, body), status, name)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", "/devices/d1", {"deviceId": "d1", "status": "on"}),
        ("POST", "/devices/query", {"query": "SELECT * FROM devices WHERE FOO(tags)"}),
        ("POST", "/twins/d1/methods", {"methodName": "m", "responseTimeoutInSeconds": 1}),
    ],
)
async def test_node_reads_the_whole_text(rest: RestClient, method: str, target: str, body: object) -> None:
    """It takes what stands between the first semicolon and the second, or all of a text that has none."""
    parts = (await rest.request(method, f"{target}?{VERSION}", body)).json["Message"].split(";")
    assert len(parts) == (1 if parts[0].startswith("{") else 2)
    assert "there are" in parts[-1] or "are allowed" in parts[-1]


async def test_ids_keep_their_semicolons(rest: RestClient) -> None:
    answer = await rest.request("GET", f"/devices/a;b?{VERSION}")
    assert answer.json["Message"] == "ErrorCode:DeviceNotFound;a;b"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/digitaltwins/d1"),
        ("POST", "/digitaltwins/d1/commands/reboot"),
        ("PUT", "/jobs/v2/j1"),
        ("GET", "/jobs/v2/query"),
        ("GET", "/configurations"),
        ("PUT", "/configurations/c1"),
        ("POST", "/devices/d1/applyConfigurationContent"),
    ],
)
async def test_what_a_hub_does_not_have(rest: RestClient, method: str, target: str) -> None:
    require_hub_shape(await rest.request(method, f"{target}?{VERSION}", {}, host=HUB_HOST), 404, "GenericNotFound")


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "code"),
    [
        ("GET", f"/enrollments/e1?{VERSION}", b"", 404, 404201),
        ("DELETE", f"/enrollments/e1?{VERSION}", b"", 404, 404201),
        ("GET", f"/registrations/e1?{VERSION}", b"", 404, 404202),
        ("DELETE", f"/registrations/e1?{VERSION}", b"", 404, 404202),
        ("GET", "/enrollments/e1", b"", 400, 400001),
        ("GET", "/enrollments/e1?api-version=2021", b"", 400, 400001),
        ("PUT", f"/enrollments/e1?{VERSION}", b"", 400, 400005),
        ("PUT", f"/enrollments/e1?{VERSION}", b"{", 400, 400006),
        ("PUT", f"/enrollments/e1?{VERSION}", b'{"registrationId":"e1"}', 400, 400005),
        ("PUT", f"/enrollments/e1?{VERSION}", TOO_LARGE, 413, 413001),
        ("POST", f"/enrollments/e1?{VERSION}", b"{}", 405, 405000),
        ("POST", f"/enrollments?{VERSION}", b"{}", 400, 400004),
        ("PATCH", f"/enrollments/e1?{VERSION}", b"{}", 405, 405000),
        ("PUT", f"/registrations/e1?{VERSION}", b"{}", 405, 405000),
        ("GET", f"/enrollmentGroups/g1?{VERSION}", b"", 404, 404201),
    ],
)
async def test_the_provisioning_service(
    rest: RestClient, method: str, target: str, body: bytes, status: int, code: int
) -> None:
    require_provisioning_shape(await rest.request(method, target, body, host=DPS_HOST), status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("PUT", "0ne1/registrations", 405, 405000),
        ("PUT", "0ne1/registrations/", 405, 405000),
        ("PUT", "0ne1/registrations//register", 405, 405000),
        ("PUT", "0ne1/registrations/register", 405, 405000),
        ("GET", "0ne1/Registrations/dev-01/register", 405, 405000),
        ("DELETE", "0ne1/registrations/dev-01", 405, 405000),
        ("GET", "0ne1/registrations/dev-01/operations", 404, 404000),
        ("PUT", "0ne1/registrations/dev-01/register/more", 404, 404000),
    ],
)
async def test_paths_of_a_device_that_registers(
    rest: RestClient, method: str, path: str, status: int, code: int
) -> None:
    require_provisioning_shape(await rest.request(method, f"/{path}?{VERSION}", b"{}"), status, code)


async def test_not_authorized(rest: RestClient) -> None:
    hub = await rest.request("GET", f"/devices/d1?{VERSION}", authorization=None)
    require_hub_shape(hub, 401, "IotHubUnauthorizedAccess")
    dps = await rest.request("GET", f"/enrollments/e1?{VERSION}", authorization=None)
    require_provisioning_shape(dps, 401, 401002)
    own = await rest.request("GET", "/muster/v1/events", authorization=None)
    require_provisioning_shape(own, 401, 401002)


async def test_who_is_not_authorized_learns_nothing_else(rest: RestClient) -> None:
    """Neither whether the id exists, nor what is wrong with the request."""
    for target in ("/devices/d1", "/devices/d1?api-version=x", "/enrollments/e1", "/registrations/r1"):
        assert (await rest.request("PUT", target, b"{", authorization=None)).status in (401, 405)


async def test_a_method_that_is_not_allowed_names_those_that_are(rest: RestClient) -> None:
    answer = await rest.request("PATCH", f"/devices/d1?{VERSION}")
    assert {word.strip() for word in answer.headers["allow"].split(",")} >= {"GET", "PUT", "DELETE"}


async def test_a_client_that_leaves_in_the_middle_is_no_error(
    rest: RestClient, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ClientDisconnect):  # which the HTTP front end takes
        await rest.request("PUT", f"/devices/d1?{VERSION}", {"deviceId": "d1"}, complete=False)
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert await services.devices.find("hub", "d1") is None


async def test_numbers_of_any_length(rest: RestClient) -> None:
    """A number with thousands of digits is text to Python, and no reason to fail."""
    digits = "9" * 10_000
    assert (await rest.request("GET", f"/devices?{VERSION}&top={digits}")).status == 200
    enrollments = await rest.request("POST", f"/enrollments/query?{VERSION}", {}, x_ms_max_item_count=digits)
    assert enrollments.status == 200
    for path in (f"reports?top={digits}", f"events?top={digits}"):
        assert (await rest.request("GET", f"/muster/v1/{path}")).status == 200
    for query in (
        f"partition={digits}",
        f"partition=0&from={digits}",
        f"continuation={digits}",
        f"continuation={digits}-0-0-0",
        "continuation=9223372036854775808-0-0-0",
        "continuation=-1-0-0-0",
        "continuation=1-2",
        "partition=0&from=%C2%B2",
        "partition=%C2%B2",
        "partition=4",
        "from=3",
        "from=yesterday",
    ):
        answer = await rest.request("GET", f"/muster/v1/events?{query}")
        require_provisioning_shape(answer, 400, 400004)


async def test_reports_stay_small_whatever_was_sent(rest: RestClient, services: Services) -> None:
    long = "x" * 60_000
    await rest.request("GET", f"/devices/{long}?{VERSION}", authorization=f"SharedAccessSignature {long}")
    token = f"SharedAccessSignature sr={long}&sig={long}&se=1&skn=iothubowner"
    await rest.request("GET", f"/devices/{long}?{VERSION}", authorization=token)
    token = f"SharedAccessSignature sr=a&sig=b&se={'1' * 60_000}&skn={long}"
    await rest.request("GET", f"/devices/{long}?{VERSION}", authorization=token)
    row = await services.database.fetch_one(
        "SELECT count(*), max(length(document)), max(length(subject_key)) FROM report"
    )
    assert row is not None
    assert row[0] == 3
    assert row[1] < 8_000
    assert row[2] <= 512


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:443", "", "localhost.evil.example.com"])
@pytest.mark.parametrize("path", ["status", "events", "events?hub=nope", "reports", "reports/x"])
async def test_own_routes_answer_only_under_own_names(rest: RestClient, host: str, path: str) -> None:
    """Against DNS rebinding: 421, before anything else is said."""
    answer = await rest.request("GET", f"/muster/v1/{path}", host=host)
    require_provisioning_shape(answer, 421, 421000)
    assert "hub" not in answer.json["message"]


@pytest.mark.parametrize(
    "host", [HUB_HOST, f"{HUB_HOST}:443", "HUB.example.net", "localhost:8443", "127.0.0.1", "[::1]", "[::1]:443"]
)
async def test_own_names(rest: RestClient, host: str) -> None:
    assert (await rest.request("GET", "/muster/v1/status", host=host)).status == 200
