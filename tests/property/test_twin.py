"""The laws of twins, for any series of writes, against a model that knows only the rules of hub-device.md 7.4."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from muster.domain.twin import PropertiesBody, TwinBody, TwinWrite, new_twin, patch_reported, patch_twin, replace_twin
from muster.domain.twin_rules import require_valid
from tests.property.twin_strategies import sections

NOW = 1_790_000_000_000_000

bodies = st.builds(
    lambda tags, desired: TwinBody(tags, PropertiesBody(desired)),
    sections() | st.just(UNSET) | st.none(),
    sections() | st.just(UNSET) | st.none(),
)
operations = st.tuples(st.just("report"), sections()) | st.tuples(st.sampled_from(["patch", "replace"]), bodies)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396, which is the same algorithm: an oracle written from there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, item in patch.items():
        if item is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), item)
    return result


def has_null(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and any(map(has_null, value.values())))


def leaves(metadata: dict[str, Any]) -> dict[str, Any]:
    """Its shape: names only, without stamps."""
    return {key: leaves(item) for key, item in metadata.items() if not key.startswith("$")}


def shape(section: dict[str, Any]) -> dict[str, Any]:
    return {key: shape(item) if isinstance(item, dict) else {} for key, item in section.items()}


def without_version(document: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in document.items() if key != "$version"}


@given(st.lists(operations, max_size=8))
def test_any_series_of_writes(series: list[tuple[str, Any]]) -> None:
    twin = new_twin(None, NOW)
    for number, (operation, body) in enumerate(series):
        before = msgspec.json.encode(twin)
        now = NOW + number
        write: TwinWrite | None
        if operation == "report":
            write = patch_reported(twin, body, twin.reported_version, now)
            assert write.twin.reported == merge(twin.reported, body)
            assert (write.twin.tags, write.twin.desired, write.twin.etag) == (twin.tags, twin.desired, twin.etag)
            assert write.twin.reported_version == twin.reported_version + 1
            assert write.desired_notice is None
        else:
            write = (patch_twin if operation == "patch" else replace_twin)(twin, body, now)
            if write is None:
                continue
            assert write.twin.etag == twin.etag + 1
            assert write.twin.reported == twin.reported
            check_notice(operation, twin.desired, write)
        assert msgspec.json.encode(twin) == before, "a write changed the twin it was decided on"
        after = write.twin
        assert after.version == twin.version + 1
        assert after.desired_version - twin.desired_version == (write.desired_notice is not None)
        for values, metadata in ((after.desired, after.desired_metadata), (after.reported, after.reported_metadata)):
            assert not any(map(has_null, values.values()))
            assert leaves(metadata) == shape(values)
        for section, values in (("tags", after.tags), ("desired", after.desired), ("reported", after.reported)):
            require_valid(section, values)
        twin = after


def check_notice(operation: str, desired: dict[str, Any], write: TwinWrite) -> None:
    """What a device is sent: after a patch it leads from the old document to the new one, else it is the new one."""
    if write.desired_notice is None:
        assert write.twin.desired == desired
        return
    assert write.desired_notice["$version"] == write.twin.desired_version
    notice = without_version(write.desired_notice)
    assert (merge(desired, notice) if operation == "patch" else notice) == write.twin.desired


@given(sections(), sections())
def test_untouched_values_keep_their_stamps(first: dict[str, Any], second: dict[str, Any]) -> None:
    twin = patch_reported(new_twin(None, NOW), first, None, NOW).twin
    after = patch_reported(twin, second, None, NOW + 1_000_000).twin
    for key in set(twin.reported) - set(second):
        assert after.reported_metadata[key] == twin.reported_metadata[key]
    for key in set(second) & set(after.reported):
        assert after.reported_metadata[key]["$lastUpdated"] > twin.reported_metadata["$lastUpdated"]
    assert after.reported_metadata["$lastUpdated"] > twin.reported_metadata["$lastUpdated"]


@given(sections())
def test_a_null_section_removes_all_of_it(section: dict[str, Any]) -> None:
    body = TwinBody(section, PropertiesBody(section))
    twin = replace_twin(new_twin(None, NOW), body, NOW).twin
    write = patch_twin(twin, TwinBody(None, PropertiesBody(None)), NOW)
    emptied = write.twin if write else twin
    assert (emptied.tags, emptied.desired) == ({}, {})


@given(sections())
def test_what_a_client_read_it_may_send_back(section: dict[str, Any]) -> None:
    """Clients echo ``$metadata`` and ``$version`` (hub-service.md 3.3)."""
    echoed = {**section, "$metadata": {"$lastUpdated": "x"}, "$version": 7}
    plain = replace_twin(new_twin(None, NOW), TwinBody(section, PropertiesBody(section)), NOW)
    assert replace_twin(new_twin(None, NOW), TwinBody(echoed, PropertiesBody(echoed)), NOW) == plain
