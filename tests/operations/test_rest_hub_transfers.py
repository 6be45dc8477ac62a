"""Import and export by a blob container, which no Muster has: what is answered (hub-service.md 2.8)."""

from typing import Any

import pytest
from tests.support.fix_arm import HUBS, ManagementClient
from tests.support.fix_rest import HUB_HOST, VERSION, RestClient

CONTAINER = "https://acct.blob.example/c?sv=x"
EXPORT = {"type": "export", "outputBlobContainerUri": CONTAINER, "excludeKeysInExport": False}
IMPORT = {"type": "import", "inputBlobContainerUri": CONTAINER, "outputBlobContainerUri": CONTAINER}


@pytest.mark.parametrize("job", [EXPORT, IMPORT])
async def test_no_container_can_be_used(rest: RestClient, job: dict[str, Any]) -> None:
    answer = await rest.request("POST", f"/jobs/create?{VERSION}", job)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "BlobContainerValidationError")
    assert answer.json["Message"].startswith("ErrorCode:BlobContainerValidationError;")
    assert "muster device export" in answer.json["Message"]


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ({}, "ArgumentInvalid"),
        ({**EXPORT, "type": "copy"}, "ArgumentInvalid"),
        ({"type": "export"}, "ArgumentNull"),
        ({**IMPORT, "inputBlobContainerUri": ""}, "ArgumentNull"),
    ],
)
async def test_what_is_no_job(rest: RestClient, job: dict[str, Any], name: str) -> None:
    answer = await rest.request("POST", f"/jobs/create?{VERSION}", job)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, name)


async def test_there_are_no_jobs(rest: RestClient) -> None:
    assert (await rest.request("GET", f"/jobs?{VERSION}")).json == []
    for method in ("GET", "DELETE"):
        answer = await rest.request(method, f"/jobs/0123?{VERSION}")
        assert (answer.status, answer.headers["iothub-errorcode"]) == (404, "JobNotFound")


async def test_it_takes_the_right_to_write(rest: RestClient) -> None:
    for method, path in (("POST", "/jobs/create"), ("GET", "/jobs"), ("DELETE", "/jobs/1")):
        token = rest.token("registryRead", HUB_HOST)
        assert (await rest.request(method, f"{path}?{VERSION}", EXPORT, authorization=token)).status == 401


@pytest.mark.parametrize("word", ["exportDevices", "importDevices"])
async def test_over_resource_manager(arm: ManagementClient, word: str) -> None:
    body = {"exportBlobContainerUri": CONTAINER, "excludeKeys": False}
    answer = await arm.request("POST", f"{HUBS}/hub/{word}", body)
    assert (answer.status, "muster device export" in answer.json["message"]) == (400, True)
    assert (await arm.request("POST", f"{HUBS}/nowhere/{word}", body)).status == 404
