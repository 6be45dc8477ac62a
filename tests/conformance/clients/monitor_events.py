"""What ``az iot hub monitor-events --login`` does, step by step, with the uamqp that it uses (interop-facts.md 13).

The hub redirects; the event hub tells its partitions; one connection then has a receiver for each of them, which asks
for what came after a moment.
"""

import asyncio
from typing import Any
from urllib.parse import quote_plus

import uamqp
from azure.iot.hub.sastoken import SasToken
from conversation import converse
from uamqp import address, authentication, errors

_SECONDS = 60.0
_MILLISECONDS = 60_000


def parts(connection_string: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in connection_string.split(";"))


async def redirect(hub: dict[str, str]) -> dict[str, Any]:
    """A receiver on the hub's own events, by SASL PLAIN: the hub must end it with where to go."""
    host, policy = hub["HostName"], hub["SharedAccessKeyName"]
    token = str(SasToken(host, hub["SharedAccessKey"], policy))
    user = f"{policy}@sas.root.{host.split('.')[0]}"
    url = f"amqps://{quote_plus(user)}:{quote_plus(token)}@{host}/messages/events/$management"
    client = uamqp.ReceiveClientAsync(address.Source(url), timeout=_MILLISECONDS, prefetch=1)
    try:
        await client.open_async()
        await client.receive_message_batch_async(max_batch_size=1)
    except errors.LinkRedirect as told:
        where = told.address.decode()
        return {
            "hostname": told.hostname.decode(),
            "address": where,
            "path": where.replace("amqps://", "").split("/")[1],
            "port": told.port,
            "networkHost": told.network_host.decode() if hasattr(told, "network_host") else "",
        }
    finally:
        await client.close_async()
    raise AssertionError("there was no redirect")


async def metadata(host: str, path: str, hub: dict[str, str]) -> dict[Any, Any]:
    """``$management`` READ of the event hub."""
    client = uamqp.ReceiveClientAsync(
        address.Source(f"amqps://{host}/{path}"), auth=token_auth(host, path, hub), timeout=_MILLISECONDS
    )
    try:
        await client.open_async()
        response = await client.mgmt_request_async(
            uamqp.Message(application_properties={"name": path}),
            b"READ",
            op_type=b"com.microsoft:eventhub",
            status_code_field=b"status-code",
            description_fields=b"status-description",
            timeout=_MILLISECONDS,
        )
        return dict(response.get_data())
    finally:
        await client.close_async()


def token_auth(host: str, path: str, hub: dict[str, str]) -> Any:
    return authentication.SASTokenAsync.from_shared_access_key(
        f"sb://{host}/{path}", hub["SharedAccessKeyName"], hub["SharedAccessKey"]
    )


async def collect(
    host: str, path: str, hub: dict[str, str], partitions: list[str], since: int, group: str, count: int
) -> list[dict[str, Any]]:
    """One connection, a receiver for each partition, until so many events have come."""
    found: list[dict[str, Any]] = []
    enough = asyncio.Event()
    auth = token_auth(host, path, hub)
    connection = uamqp.ConnectionAsync(host, sasl=auth, container_id="IoTPlatformCliExtension/0.25.0/x")

    async def follow(partition: str) -> None:
        source = address.Source(f"amqps://{host}/{path}/ConsumerGroups/{group}/Partitions/{partition}")
        source.set_filter(f"amqp.annotation.x-opt-enqueuedtimeutc > {since}".encode())
        client = uamqp.ReceiveClientAsync(source, auth=auth, timeout=_MILLISECONDS, prefetch=0)
        await client.open_async(connection=connection)
        try:
            async for message in client.receive_messages_iter_async():
                found.append(event(message, partition))
                if len(found) >= count:
                    enough.set()
        finally:
            await client.close_async()

    tasks = [asyncio.ensure_future(follow(partition)) for partition in partitions]
    try:
        async with asyncio.timeout(_SECONDS):
            await enough.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connection.destroy_async()
    return found


def event(message: Any, partition: str) -> dict[str, Any]:
    """As the CLI reads it."""
    annotations = {key.decode(): value for key, value in message.annotations.items()}
    properties = message.properties
    return {
        "partition": partition,
        "origin": annotations["iothub-connection-device-id"].decode(),
        "body": next(iter(message.get_data())).decode(),
        "contentType": properties.content_type.decode() if properties and properties.content_type else None,
        "application": {key.decode(): value.decode() for key, value in (message.application_properties or {}).items()},
        "annotations": {
            key: value.decode() if isinstance(value, bytes) else value for key, value in annotations.items()
        },
    }


def monitor(connection_string: str, since: int, count: int, group: str = "$Default") -> dict[str, Any]:
    """All of it."""
    return asyncio.run(_monitor(parts(connection_string), since, count, group))


async def _monitor(hub: dict[str, str], since: int, count: int, group: str) -> dict[str, Any]:
    told = await redirect(hub)
    meta = await metadata(told["hostname"], told["path"], hub)
    partitions = [partition.decode() for partition in meta[b"partition_ids"]]
    found = await collect(told["hostname"], told["path"], hub, partitions, since, group, count)
    return {"redirect": told, "partitionCount": meta[b"partition_count"], "partitions": partitions, "events": found}


if __name__ == "__main__":
    converse({"monitor": monitor})
