import pytest

from muster.cli.failure import CommandError
from muster.cli.output import record_text
from muster.cli.query import rows_text
from muster.cli.twin import twin_patch, twin_rows

TWIN = {
    "deviceId": "pump-01",
    "etag": "AAAAAAAAAAE=",
    "status": "enabled",
    "connectionState": "Disconnected",
    "lastActivityTime": "0001-01-01T00:00:00Z",
    "modelId": "",
    "version": 3,
    "properties": {
        "desired": {
            "interval": 30,
            "$metadata": {"$lastUpdated": "2026-11-23T10:00:00.1234567Z", "$lastUpdatedVersion": 2},
            "$version": 2,
        },
        "reported": {"$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z"}, "$version": 1},
    },
}


def test_a_twin_is_shown_without_metadata() -> None:
    lines = [line.rstrip() for line in record_text(twin_rows(TWIN)).splitlines()]
    assert lines == [
        "DeviceId      : pump-01",
        "Status        : enabled",
        "Connection    : Disconnected",
        "Last Activity :",
        "Model Id      :",
        "Tags          : {}",
        'Desired       : {"interval": 30}',
        "                version 2 of 2026-11-23 10:00:00Z",
        "Reported      : {}",
        "                version 1",
        "Version       : 3",
        "ETag          : AAAAAAAAAAE=",
    ]


def test_a_module_has_its_name() -> None:
    assert ("ModuleId", "m1") in twin_rows({**TWIN, "moduleId": "m1"})


def test_a_patch_of_options() -> None:
    assert twin_patch('{"tags": {"a": 1}}', ["site.hall=4", "old=null"], ["fan.mode=auto", "list=[1]"]) == {
        "tags": {"a": 1, "site": {"hall": 4}, "old": None},
        "properties": {"desired": {"fan": {"mode": "auto"}, "list": [1]}},
    }


@pytest.mark.parametrize("patch, tags", [(None, []), ("{}", []), ("{", []), ("[]", []), (None, ["site"])])
def test_what_is_no_patch(patch: str | None, tags: list[str]) -> None:
    with pytest.raises(CommandError):
        twin_patch(patch, tags, [])


def test_twins_that_were_found() -> None:
    assert rows_text([TWIN, {**TWIN, "deviceId": "p2", "tags": {"site": "A"}}]).splitlines() == [
        "DeviceId  Status   Connection    Last Activity  Tags",
        "pump-01   enabled  Disconnected                 {}",
        'p2        enabled  Disconnected                 {"site": "A"}',
    ]


def test_rows_of_a_projection_have_their_own_columns() -> None:
    rows = [{"site": "A", "n": 2}, {"n": 1, "flag": True, "\x1b[31m": None}]
    assert rows_text(rows).splitlines() == [
        "site  n  flag  \\x1b[31m",
        "A     2",
        "      1  true  null",
    ]
