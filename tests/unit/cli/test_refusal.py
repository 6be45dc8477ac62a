import json

from muster.cli.refusal import Refusal, read_description, read_refusal

MODERN = {
    "errorCode": 404103,
    "trackingId": "2b5a6f0c-1c4e-4a0c-8a55-1f4f6f7f9c21",
    "message": "Timed out waiting for device to connect.",
    "timestampUtc": "2026-11-23T10:15:02Z",
}
WANTED = Refusal(
    "Timed out waiting for device to connect.",
    code=404103,
    tracking_id="2b5a6f0c-1c4e-4a0c-8a55-1f4f6f7f9c21",
)


def test_the_provisioning_service_shape():
    assert read_refusal(404, "Not Found", MODERN) == WANTED


def test_the_classic_hub_shape():
    document = {
        "Message": "ErrorCode:DeviceNotFound;dev-7; really",
        "ExceptionMessage": "Tracking ID:0f3c9b0e7d7a4f0e9a6c1b2d3e4f5a6b-G:3-TimeStamp:11/23/2026 10:15:02",
    }
    assert read_refusal(404, "Not Found", document) == Refusal(
        "dev-7; really", name="DeviceNotFound", tracking_id="0f3c9b0e7d7a4f0e9a6c1b2d3e4f5a6b"
    )


def test_a_tracking_id_without_a_gateway():
    document = {
        "Message": "ErrorCode:X;y",
        "ExceptionMessage": "Tracking ID:7f3a-11-TimeStamp:11/23/2026 10:15:02",
    }
    assert read_refusal(400, "Bad Request", document).tracking_id == "7f3a-11"


def test_one_shape_as_text_inside_the_other():
    document = {"Message": json.dumps(MODERN), "ExceptionMessage": ""}
    assert read_refusal(404, "Not Found", document) == WANTED


def test_a_message_without_a_code_is_taken_whole():
    assert read_refusal(400, "Bad Request", {"Message": "no", "ExceptionMessage": None}) == Refusal("no")


def test_what_says_nothing_is_told_by_its_status():
    for document in (None, [], {}, {"Message": ""}, {"errorCode": "x"}):
        assert read_refusal(421, "Misdirected Request", document).message == "421 Misdirected Request"


def test_the_shape_of_resource_manager():
    document = {
        "code": 400004,
        "httpStatusCode": "BadRequest",
        "message": "No such right.",
        "details": "Tracking id 2b5a6f0c",
        "error": {"code": "ArgumentInvalid", "message": "No such right."},
    }
    for code in (400004, "400004"):
        wanted = Refusal("No such right.", code=400004, name="ArgumentInvalid")
        assert read_refusal(400, "Bad Request", {**document, "code": code}) == wanted
    assert read_refusal(404, "Not Found", {"error": {}}) == Refusal("404 Not Found")


def test_the_description_of_an_amqp_error():
    assert read_description("amqp:not-found", json.dumps(MODERN)) == WANTED
    text = "IotHubUnauthorizedAccess: Unauthorized Tracking ID:2b5a-1"
    assert read_description("", text) == Refusal("IotHubUnauthorizedAccess: Unauthorized", tracking_id="2b5a-1")
    assert read_description("amqp:x", "No.", "t-1") == Refusal("No.", name="amqp:x", tracking_id="t-1")
    assert read_description("amqp:x", "[1]") == Refusal("[1]", name="amqp:x")
