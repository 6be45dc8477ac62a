import re

from muster.domain.registration import Registration, is_operation_of, operation_id, operation_view, state_view

NOW = 1_790_000_000_000_000


def registration(**fields: object) -> Registration:
    common = {"registration_id": "pump", "operation_id": "5.x.y", "created": NOW, "last_updated": NOW, "etag": "e"}
    return Registration(**{**common, "status": "assigned", **fields})  # type: ignore[arg-type]  # a test's shorthand


def test_an_operation_id_is_constant_in_the_middle() -> None:
    first, second = operation_id("0ne1", "Pump", bytes(12)), operation_id("0ne1", "pump", bytes([255]) * 12)
    assert first.startswith("5.")
    assert first.split(".")[1] == second.split(".")[1]
    assert len(first.split(".")[1]) == 16
    assert re.fullmatch(r"ffffffff-ffff-ffff-ffff-ffff[0-9a-f]{8}", second[-36:])
    assert first[-8:] != second[-8:]


def test_operations_that_were() -> None:
    known = operation_id("0ne1", "pump", bytes(range(12)))
    assert is_operation_of(known, "0ne1", "PUMP")
    assert not is_operation_of(known, "0ne1", "other")
    assert not is_operation_of(known, "0ne2", "pump")
    for place in range(len(known)):
        digit = "0" if known[place] == "1" else "1"
        assert not is_operation_of(known[:place] + digit + known[place + 1 :], "0ne1", "pump")
    for made_up in ("", known[:-1], known + "0", known.upper(), known.replace("-", ""), known[:-12]):
        assert not is_operation_of(made_up, "0ne1", "pump")


def test_while_assigning_there_is_a_partial_state() -> None:
    assert operation_view(registration(status="assigning"), None) == {
        "operationId": "5.x.y",
        "status": "assigning",
        "registrationState": {"registrationId": "pump", "status": "assigning"},
    }


def test_an_assigned_registration() -> None:
    view = operation_view(
        registration(substatus="initialAssignment", assigned_hub="a", device_id="pump", attestation={"x509": {}}),
        "a.net",
    )
    state = view["registrationState"]
    assert view["status"] == state["status"] == "assigned"
    assert (state["assignedHub"], state["deviceId"], state["substatus"]) == ("a.net", "pump", "initialAssignment")
    assert state["x509"] == {}
    assert "errorCode" not in state
    assert "payload" not in state


def test_a_failed_one_shows_neither_hub_nor_device() -> None:
    state = state_view(
        registration(status="failed", error_code=400210, error_message="no", assigned_hub="a", device_id="d"), "a.net"
    )
    assert (state["errorCode"], state["errorMessage"]) == (400210, "no")
    assert "assignedHub" not in state
    assert "deviceId" not in state
    assert "substatus" not in state
