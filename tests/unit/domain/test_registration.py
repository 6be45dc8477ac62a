from collections import Counter

import pytest

from muster.domain.errors import NoHubAvailableError
from muster.domain.registration import LinkedHub, Registration, choose_hub, operation_id, operation_view, state_view

NOW = 1_790_000_000_000_000
HUBS = (LinkedHub("a", "a.net", True, 1), LinkedHub("b", "b.net", True, 3), LinkedHub("c", "c.net", False, 1))


def registration(**fields: object) -> Registration:
    common = {"registration_id": "pump", "operation_id": "5.x.y", "created": NOW, "last_updated": NOW, "etag": "e"}
    return Registration(**{**common, "status": "assigned", **fields})  # type: ignore[arg-type]  # a test's shorthand


def test_an_operation_id_is_constant_in_the_middle() -> None:
    first, second = operation_id("0ne1", "Pump", bytes(16)), operation_id("0ne1", "pump", bytes([255]) * 16)
    assert first.startswith("5.")
    assert first.split(".")[1] == second.split(".")[1]
    assert len(first.split(".")[1]) == 16
    assert second.endswith(".ffffffff-ffff-ffff-ffff-ffffffffffff")


def test_while_assigning_there_is_a_partial_state() -> None:
    assert operation_view(registration(status="assigning"), None) == {
        "operationId": "5.x.y",
        "status": "assigning",
        "registrationState": {"registrationId": "pump", "status": "assigning"},
    }


def test_an_assigned_registration() -> None:
    view = operation_view(registration(substatus="initialAssignment", assigned_hub="a", device_id="pump"), "a.net")
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


def test_hubs_are_chosen_by_weight_and_always_the_same() -> None:
    chosen = [choose_hub(f"device-{number}", HUBS, ()).name for number in range(4000)]
    assert chosen == [choose_hub(f"DEVICE-{number}", HUBS, ()).name for number in range(4000)]
    counts = Counter(chosen)
    assert set(counts) == {"a", "b"}, "c does not apply the allocation policy"
    assert 2.4 < counts["b"] / counts["a"] < 3.7


def test_a_named_hub_is_taken_even_if_it_does_not_apply_the_policy() -> None:
    assert choose_hub("d", HUBS, ("C.NET",)).name == "c"


def test_a_new_hub_moves_only_what_it_must() -> None:
    ids = [f"device-{number}" for number in range(1000)]
    before = {each: choose_hub(each, HUBS[:2], ()).name for each in ids}
    after = {each: choose_hub(each, (*HUBS[:2], LinkedHub("d", "d.net", True, 1)), ()).name for each in ids}
    assert all(after[each] in (before[each], "d") for each in ids)


def test_no_hub() -> None:
    with pytest.raises(NoHubAvailableError, match="No IoT hubs available"):
        choose_hub("d", (), ())
    with pytest.raises(NoHubAvailableError, match=r"gone\.net"):
        choose_hub("d", HUBS, ("gone.net",))
