"""Who is connected: the newest connection of an identity wins, and the registry shows its state.

A connection gives one callable, ``deliver``, through which the hub speaks to it (style-models.md 11.5, the down
surface). Not here: authentication, and any protocol.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from muster.bus.bus import Bus, Subscription
from muster.domain.errors import DeviceNotFoundError
from muster.domain.timestamp import MINUTE
from muster.hub import mqtt_sessions
from muster.hub.activity import note_activity
from muster.hub.authentication import Principal
from muster.hub.devices import identity_changed_subject
from muster.hub.grounds import Grounds
from muster.hub.hub_events import HubEvents
from muster.store.database import Body, Database, DatabaseUnavailableError, Transaction

_log = logging.getLogger("muster.hub")

_ACTIVITY_STEP = MINUTE
_MAXIMUM_REMEMBERED = 10_000


class Notice(StrEnum):
    """What the hub tells a connection: that it is over, or that it has to judge itself again."""

    DISPLACED = "displaced"
    IDENTITY_CHANGED = "identity changed"


Deliver = Callable[[Notice], None]


@dataclass(slots=True)
class Session:
    """One attached connection. ``session_id`` is unique for each attach.

    ``last_activity`` is what the registry was told, in microseconds. ``resumed`` is what an earlier MQTT connection of
    the identity was subscribed to; None when it left nothing.
    """

    principal: Principal
    session_id: str
    deliver: Deliver
    resumed: mqtt_sessions.Subscriptions | None = None
    last_activity: int = 0
    subscription: Subscription | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        identity = self.principal.identity
        return (self.principal.hub.name, identity.device_id, identity.module_id)


class Sessions:
    """The connections of this node, and the connection state of all identities."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        hub_events: HubEvents,
        grounds: Grounds,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._bus = bus
        self._hub_events = hub_events
        self._grounds = grounds
        self._clock = clock
        self._entropy = entropy
        self._here: dict[tuple[str, str, str], Session] = {}
        # Of identities that send without a connection: what the registry was told last.
        self._activity: dict[tuple[str, str, str, str], int] = {}

    @property
    def count(self) -> int:
        """How many identities are connected to this node."""
        return len(self._here)

    @property
    def here(self) -> tuple[Session, ...]:
        """The connections of this node as they are now."""
        return tuple(self._here.values())

    async def attach(self, principal: Principal, deliver: Deliver, *, clean_session: bool | None = None) -> Session:
        """Make this the identity's only connection: an older one is told that it is displaced.

        ``clean_session`` is what an MQTT client asks for, None for other protocols. When the identity changed since it
        was read for ``principal``, or what that leans on, the connection is told at once. Raises DeviceNotFoundError
        when it is gone.
        """
        session = Session(principal, self._entropy(16).hex(), deliver)
        hub, device_id, module_id = session.key
        older = self._here.pop(session.key, None)
        if older is not None:
            self._leave(older)
        self._here[session.key] = session
        session.subscription = self._bus.subscribe(
            identity_changed_subject(hub, device_id), lambda _data: deliver(Notice.IDENTITY_CHANGED)
        )
        now = session.last_activity = self._clock()

        async def body(tx: Transaction) -> bool:
            identity = await tx.fetch_one(
                "SELECT etag, status FROM identity"
                " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id"
                " AND generation_id = :generation_id {for_update}",
                hub=hub,
                device_id=device_id,
                module_id=module_id,
                generation_id=principal.identity.generation_id,
            )
            if identity is None:
                raise DeviceNotFoundError(device_id)
            etag, status = identity
            if module_id:  # a disabled device disables its modules
                device = await tx.fetch_one(
                    "SELECT status FROM identity WHERE hub = :hub AND device_id = :device_id AND module_id = ''",
                    hub=hub,
                    device_id=device_id,
                )
                status = device[0] if device else None
            tell = self._hub_events.tells_connections(hub) and not await _is_connected(tx, session.key)
            await tx.execute(
                "INSERT INTO connection (hub, device_id, module_id, session_id, connected,"
                " connection_state_updated, last_activity)"
                " VALUES (:hub, :device_id, :module_id, :session_id, :now, :now, :now)"
                " ON CONFLICT (hub, device_id, module_id) DO UPDATE SET session_id = excluded.session_id,"
                " connected = excluded.connected, last_activity = excluded.last_activity,"
                " connection_state_updated = CASE WHEN connection.session_id IS NULL"
                " THEN excluded.connection_state_updated ELSE connection.connection_state_updated END",
                hub=hub,
                device_id=device_id,
                module_id=module_id,
                session_id=session.session_id,
                now=now,
            )
            if tell:
                await self._hub_events.connection_changed(tx, hub, device_id, module_id, connected=True)
            if clean_session is not None:
                session.resumed = await mqtt_sessions.open_in(tx, session.key, clean=clean_session)
            return bool(status == "enabled" and etag == principal.identity.etag)

        try:
            unchanged = await self._database.transact(body) and not await self._grounds.changed(principal)
        except BaseException:
            self.detach(session)
            raise
        finally:
            if older is not None:  # now: what it stores when it ends comes behind what is stored of this one
                older.deliver(Notice.DISPLACED)
        if not unchanged:
            deliver(Notice.IDENTITY_CHANGED)
        return session

    def detach(self, session: Session) -> None:
        """The connection is gone. A newer one of the same identity is left alone; the registry follows in a moment."""
        self._leave(session)
        if self._here.get(session.key) is session:
            del self._here[session.key]
        hub, device_id, module_id = session.key
        now = self._clock()

        async def body(tx: Transaction) -> None:
            ended = await tx.execute(
                "UPDATE connection SET session_id = NULL, connection_state_updated = :now, last_activity = :now"
                " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id AND session_id = :session_id",
                now=now,
                hub=hub,
                device_id=device_id,
                module_id=module_id,
                session_id=session.session_id,
            )
            if ended:
                await self._hub_events.connection_changed(tx, hub, device_id, module_id, connected=False)

        self._submit(body, device_id)

    def active(self, session: Session) -> None:
        """The identity sent something on this connection: the registry shows it, at most once a minute."""
        now = self._clock()
        if 0 <= now - session.last_activity < _ACTIVITY_STEP:
            return
        session.last_activity = now
        self._note_activity(session.key, now)

    def active_without(self, principal: Principal) -> None:
        """The identity sent something over HTTPS, without a connection: the same."""
        identity, now = principal.identity, self._clock()
        key = (principal.hub.name, identity.device_id, identity.module_id)
        remembered = (*key, identity.generation_id)
        last = self._activity.get(remembered)
        if last is not None and 0 <= now - last < _ACTIVITY_STEP:
            return
        if len(self._activity) >= _MAXIMUM_REMEMBERED:
            self._activity.clear()
        self._activity[remembered] = now
        self._note_activity(key, now)

    def _note_activity(self, key: tuple[str, str, str], now: int) -> None:
        hub, device_id, module_id = key

        async def body(tx: Transaction) -> None:
            await note_activity(tx, hub, device_id, module_id, now)

        self._submit(body, device_id)

    def _submit(self, body: Body[None], device_id: str) -> None:
        """Store what the registry shows of a connection, some time soon."""

        def done(_result: None, error: BaseException | None) -> None:
            if error is not None:
                _log.warning("the connection state of %s was not stored: %s", device_id, error)

        try:
            self._database.submit(body, done)
        except DatabaseUnavailableError as error:
            done(None, error)

    async def keep_subscriptions(self, session: Session, subscriptions: Mapping[str, int]) -> None:
        """Keep what the connection is subscribed to now for the identity's next one."""
        await mqtt_sessions.save(self._database, session.key, session.session_id, subscriptions)

    async def forget_all(self) -> None:
        """At the start of a single node: whoever was connected when the process ended is not any more."""
        now = self._clock()

        async def body(tx: Transaction) -> None:
            ended = await tx.fetch_all(
                "UPDATE connection SET session_id = NULL, connection_state_updated = :now WHERE session_id IS NOT NULL"
                " RETURNING hub, device_id, module_id",
                now=now,
            )
            for hub, device_id, module_id in ended:
                await self._hub_events.connection_changed(tx, hub, device_id, module_id, connected=False)

        await self._database.transact(body)

    @staticmethod
    def _leave(session: Session) -> None:
        if session.subscription is not None:
            session.subscription.close()
            session.subscription = None


async def _is_connected(tx: Transaction, key: tuple[str, str, str]) -> bool:
    hub, device_id, module_id = key
    row = await tx.fetch_one(
        "SELECT session_id FROM connection"
        " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id {for_update}",
        hub=hub,
        device_id=device_id,
        module_id=module_id,
    )
    return row is not None and row[0] is not None
