"""The hub's service API: import and export of identities by a blob container. Sources: hub-service.md 2.8.

A hub here has no blob storage, so every job is refused in the words for a container that cannot be used, at once, and
there are none to look at. Bulk requests do the same without a container (``hub_registry.py``). Not here: jobs on twins
and methods.
"""

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError, BlobContainerError, JobMissingError
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.hub_gate import HubGate
from muster.frontends.rest.requests import Guard


class _Job(msgspec.Struct, rename="camel"):
    type: str | None = None
    input_blob_container_uri: str | None = None
    output_blob_container_uri: str | None = None


@dataclass(frozen=True, slots=True)
class HubTransfersApi:
    """The handlers; ``routes`` mounts them."""

    gate: HubGate

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            ("/jobs/create", "POST"): self.create,
            ("/jobs", "GET"): self.list_jobs,
            ("/jobs/{id}", "GET"): self.find,
            ("/jobs/{id}", "DELETE"): self.find,
        }
        return [
            Route(path, guard(handler, status.hub_body), methods=[method]) for (path, method), handler in table.items()
        ]

    async def create(self, request: Request) -> Response:
        await self.gate.authorize(request, Right.REGISTRY_WRITE)
        job = await requests.read_record(request, _Job)
        if job.type not in ("import", "export"):
            raise ArgumentInvalidError(f"type is {job.type!r}; import and export are allowed.")
        if job.type == "import" and not job.input_blob_container_uri:
            raise ArgumentNullError("inputBlobContainerUri is required.")
        if not job.output_blob_container_uri:
            raise ArgumentNullError("outputBlobContainerUri is required.")
        raise no_container()

    async def list_jobs(self, request: Request) -> Response:
        await self.gate.authorize(request, Right.REGISTRY_WRITE)
        return requests.json_response([])

    async def find(self, request: Request) -> Response:
        await self.gate.authorize(request, Right.REGISTRY_WRITE)
        raise JobMissingError(f"There is no job {request.path_params['id']}.")


def no_container() -> BlobContainerError:
    """What a job is refused with, and what to do instead."""
    return BlobContainerError(
        "This Muster reads and writes no blob container. Identities are written and read by `muster device export` and"
        " `muster device import`, or 100 at a time by POST /devices."
    )
