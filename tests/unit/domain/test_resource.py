"""Names, sizes and tags of resources, and the host names of hubs."""

import base64

import pytest

from muster.domain.access_policy import PROVISIONING_RIGHTS, read_rights
from muster.domain.errors import ArgumentInvalidError
from muster.domain.etag import matches, resource_etag
from muster.domain.hub_resource import HubBody
from muster.domain.resource import (
    ResourceBody,
    ResourceFacts,
    SkuBody,
    resource_name,
    resource_name_problem,
)


@pytest.mark.parametrize(
    ("host", "name"),
    [("localhost", "localhost"), ("plant.example.net", "plant"), ("127.0.0.2", "127.0.0.2"), ("::1", "::1")],
)
def test_the_name_that_a_host_gives(host: str, name: str) -> None:
    assert resource_name(host) == name


@pytest.mark.parametrize("name", ["abc", "a-1", "1-a", "A" * 50, "12a"])
def test_names_that_may_be_chosen(name: str) -> None:
    assert resource_name_problem(name) is None


@pytest.mark.parametrize("name", ["", "ab", "a" * 51, "-abc", "abc-", "a_b", "a.b", "äöü", "abc\n", "1234"])
def test_names_that_may_not(name: str) -> None:
    assert resource_name_problem(name)


def test_what_is_not_sent_stays_but_tags() -> None:
    stored = ResourceFacts(location="plant", tags={"a": "b"}, sku="S2", capacity=3)
    assert ResourceBody().facts(stored) == ResourceFacts(location="plant", sku="S2", capacity=3)
    body = ResourceBody(location="West US", tags={"c": "d"}, sku=SkuBody(capacity=0))
    assert body.facts(stored) == ResourceFacts(location="West US", tags={"c": "d"}, sku="S2", capacity=0)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("EnrollmentRead", "EnrollmentRead"),
        ("ServiceConfig,EnrollmentWrite", "ServiceConfig, EnrollmentWrite"),
        (" enrollmentwrite ,DEVICECONNECT,EnrollmentWrite", "EnrollmentWrite, DeviceConnect"),
    ],
)
def test_rights(text: str, kept: str) -> None:
    assert read_rights(text, PROVISIONING_RIGHTS) == kept


@pytest.mark.parametrize("text", ["", ",", "EnrollmentRead,", "RegistryRead", "EnrollmentRead ServiceConfig"])
def test_rights_that_there_are_not(text: str) -> None:
    with pytest.raises(ArgumentInvalidError, match="there are ServiceConfig, EnrollmentRead"):
        read_rights(text, PROVISIONING_RIGHTS)


def test_the_tag_of_a_resource() -> None:
    etag = resource_etag(b"\x0d\xde\xcf\xdd")
    assert etag == "AAAAAA3ez90="
    assert len(base64.b64decode(etag)) == 8
    assert all(matches(spelling, etag) for spelling in (etag, f'"{etag}"', f'W/"{etag}"', "*"))
    assert not matches(resource_etag(b"\x0d\xde\xcf\xde"), etag)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("East.Localhost", "east.localhost"),
        ("127.0.0.2", "127.0.0.2"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("[::1]", "::1"),
        ("", None),
        (None, None),
    ],
)
def test_the_host_name_of_a_hub(sent: object, kept: str | None) -> None:
    assert HubBody(properties={"hostName": sent}).host_name == kept


@pytest.mark.parametrize(
    "host", ["a b", "a..b", "-a", "a-", "a/b", "a:443", "x" * 64, "ä.example", "*.localhost", "a\n"]
)
def test_what_is_no_host_name(host: str) -> None:
    with pytest.raises(ArgumentInvalidError, match="neither a host name nor an IP address"):
        _ = HubBody(properties={"hostName": host}).host_name


@pytest.mark.parametrize("value", [{}, {"events": {}}, {"events": None}, {"events": {"partitionCount": None}}, None, 7])
def test_no_number_of_partitions(value: object) -> None:
    assert HubBody(properties={"eventHubEndpoints": value}).partition_count is None


@pytest.mark.parametrize("value", [0, 33, -1, "4", 1.5, True])
def test_a_wrong_number_of_partitions(value: object) -> None:
    body = HubBody(properties={"eventHubEndpoints": {"events": {"partitionCount": value}}})
    with pytest.raises(ArgumentInvalidError, match="1 to 32 are allowed"):
        _ = body.partition_count
