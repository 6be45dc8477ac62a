"""What one AMQP connection has proved: its certificates, its SASL PLAIN login, the tokens put through ``$cbs``.

*Theory of operation.* A token is judged when it comes, and is then held under the path that it is for. Who attaches a
link is judged again, with the token that covers it, so that what has become of the identity counts. Links *lean* on
what they were judged by (``watch``) and end with it: when the last token that covers it has expired, when it is
deleted, when the identity is disabled, deleted or gets other keys. A token for the same path takes the older one's
place and prolongs. Sources: hub-device.md 9.2, 9.9, 9.10, hub-service.md 6.3, 8.3.

Not here: what a client calls itself in SASL (``amqp/sasl.py``), and the messages of ``$cbs`` (``amqp/cbs.py``).
"""

import binascii
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from muster.domain.access_policy import Right
from muster.domain.credential import Credential
from muster.domain.errors import ServiceError, TokenExpiredError, TooManyTokensError, UnauthorizedAccessError
from muster.domain.sas import (
    CLOCK_SKEW,
    MalformedTokenError,
    SasToken,
    covers,
    create_token,
    parse_token,
    signature_matches,
)
from muster.domain.timestamp import DAY, SECOND
from muster.frontends.amqp.sasl import DeviceUser, PolicyUser, RegistrationUser, User
from muster.hub.access import ServiceAccess
from muster.hub.authentication import DeviceAuthentication, DeviceLogin, Principal
from muster.hub.hubs import Hub, Hubs, UnknownHubError
from muster.hub.reports import Attempt

MAXIMUM_TOKENS = 1000
"""Of one connection; devices that share one are as many at most."""

_KEY_LOGIN_DAYS = 365
_LONGEST_SUBJECT = 256
_MAXIMUM_LEANINGS = 2000
"""From here on, what was judged and is not watched is forgotten."""

_MODULE_WORDS = ("devices", "modules")
_SERVICE_PATH = ("messages",)

Path = tuple[str, ...]
OnEnd = Callable[[ServiceError], None]


@dataclass(frozen=True, slots=True)
class ServiceClaim:
    """That the connection has one of these rights at a hub."""

    hub: str
    rights: tuple[Right, ...]


@dataclass(frozen=True, slots=True)
class ClaimServices:
    """What judges."""

    hubs: Hubs
    authentication: DeviceAuthentication
    access: ServiceAccess
    clock: Callable[[], int]


@dataclass(frozen=True, slots=True)
class _Held:
    """A token that was judged. ``ends``: when it stops counting, in microseconds."""

    text: str
    token: SasToken
    path: Path
    ends: int


@dataclass(eq=False, slots=True)
class _Leaning:
    """What links lean on, and who wants to hear of its end. ``changes`` counts what became of the identity."""

    what: Principal | ServiceClaim | None = None
    watchers: list[OnEnd] = field(default_factory=list)
    unfollow: Callable[[], None] | None = None
    changes: int = 0
    judged_at: int = 0
    judging: int = 0


class Claims:
    """Of one connection. ``moved`` is called when ``deadline`` comes nearer, ``spawn`` runs what takes a while.

    ``host`` is what the client calls the server; the connection sets it as soon as it knows. ``proved``: anything at
    all was proved on the connection so far.
    """

    def __init__(
        self,
        services: ClaimServices,
        certificates: tuple[bytes, ...],
        describe: Callable[[], str],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        moved: Callable[[], None],
    ) -> None:
        self.certificates = certificates
        self.host = ""
        self.proved = False
        self._services = services
        self._describe = describe
        self._spawn = spawn
        self._moved = moved
        self._devices: dict[Path, _Held] = {}
        self._policies: dict[tuple[Path, str], _Held] = {}
        self._registrations: dict[str, str] = {}
        self._leanings: dict[object, _Leaning] = {}
        self._deadline: int | None = None
        self._unfollow_hubs: Callable[[], None] | None = None
        self._over = False

    # Proofs

    async def login(self, user: User, password: str) -> None:
        """SASL PLAIN: hold what was sent if it proves that. Raises the refusal, with a stored report.

        What a registration proves itself with is judged when it registers.
        """
        match user:
            case RegistrationUser():
                self.hold_registration(f"{user.id_scope}/registrations/{user.registration_id}", password)
            case DeviceUser():
                hub = self._hub(user.hub)
                login = DeviceLogin(hub, self.host, user.device_id, user.module_id)
                await self._services.authentication.authenticate(login, self._credential(password))
                if password:  # without one it was the certificate that counted
                    self._hold(parse_token(password), password)
            case PolicyUser():
                hub = self._hub(user.hub)
                text = self._token_of(password, user.name, hub)
                await self._require(hub, text, (), tuple(Right), user.name)
                self._hold(parse_token(text), text)

    async def refuse(self, mechanism: str) -> None:
        """SASL that proves nothing, such as EXTERNAL without a certificate. Raises UnauthorizedAccessError, with a
        stored report.
        """
        await self._require(self._hub(), "", (), tuple(Right), f"SASL {mechanism}")

    def _token_of(self, password: str, policy: str, hub: Hub) -> str:
        """Event Hubs clients send the policy's key itself (interop-facts.md 6): the token that it would sign."""
        if password.lstrip().startswith("SharedAccessSignature"):
            return password
        expiry = self._services.clock() // SECOND + _KEY_LOGIN_DAYS * DAY // SECOND
        try:
            return create_token(hub.host_name, password, expiry, policy)
        except (binascii.Error, ValueError):
            return password  # which is judged, and refused, as it stands

    async def put(self, text: str, audience: str) -> None:
        """A token for ``$cbs``: judged by what stands in it, whatever audience is named (hub-device.md 9.2).

        Raises the refusal, with a stored report, and TooManyTokensError.
        """
        try:
            token = parse_token(text)
        except MalformedTokenError:
            await self._require(self._hub(), text, (), tuple(Right), audience)
            raise UnauthorizedAccessError from None
        segments = _segments(token.resource)
        if _is_registration(segments):
            self.hold_registration("/".join(segments), text)
            return
        device = _device_of(segments)
        if device is not None and not token.key_name:
            login = DeviceLogin(self._hub(), self.host, *device)
            await self._services.authentication.authenticate(login, self._credential(text))
        else:
            await self._require(self._hub(), text, (), tuple(Right), audience)
        self._hold(token, text)

    def delete(self, audience: str) -> None:
        """Forget the tokens for ``audience``, and end what leans on them."""
        path = _segments(audience)[1:]
        self._devices.pop(path, None)
        for key in [key for key in self._policies if key[0] == path]:
            del self._policies[key]
        self._registrations.pop("/".join(_segments(audience)).lower(), None)
        self._end_what_lapsed(self._services.clock())

    def hold_registration(self, audience: str, text: str) -> None:
        """Keep what a registration proves itself with, unjudged, for ``credential``."""
        key = audience.lower()
        if key not in self._registrations:
            self._require_room()
        self._registrations[key] = text

    def _hold(self, token: SasToken, text: str) -> None:
        path = _segments(token.resource)[1:]
        held = _Held(text, token, path, token.expiry + CLOCK_SKEW)
        known = (path, token.key_name) in self._policies if token.key_name else path in self._devices
        if not known:
            self._require_room()
        if token.key_name:
            self._policies[path, token.key_name] = held
        else:
            self._devices[path] = held
        self.proved = True

    def _require_room(self) -> None:
        if len(self._devices) + len(self._policies) + len(self._registrations) < MAXIMUM_TOKENS:
            return
        now = self._services.clock()
        self._devices = {key: held for key, held in self._devices.items() if held.ends > now}
        self._policies = {key: held for key, held in self._policies.items() if held.ends > now}
        if len(self._devices) + len(self._policies) + len(self._registrations) >= MAXIMUM_TOKENS:
            raise TooManyTokensError

    # Who may do what

    def credential(self, audience_hint: str) -> Credential:
        """The certificates, and what was put or logged in with for this audience: for provisioning, its
        ``{id scope}/registrations/{registration id}``.
        """
        return self._credential(self._registrations.get(audience_hint.strip("/").lower(), ""))

    async def device(self, hub: Hub, device_id: str, module_id: str = "") -> Principal:
        """Judge whether the connection has proved to be this identity. Raises the refusal; its report is stored."""
        leaning = self._leaning_of(hub.name, device_id, module_id)
        before = leaning.changes
        leaning.judging += 1
        try:
            held = self._covering(hub, device_id, module_id)
            login = DeviceLogin(hub, self.host, device_id, module_id)
            principal = await self._services.authentication.authenticate(login, self._credential(_text(held)))
        except BaseException:
            leaning.judging -= 1
            self._drop_unused(leaning, (hub.name, device_id, module_id))
            raise
        leaning.judging -= 1
        leaning.what = principal
        leaning.judged_at = before
        self.proved = True
        return principal

    async def service(self, hub: Hub, rights: Sequence[Right], path: Sequence[str] = ()) -> ServiceClaim:
        """Judge whether the connection may act for a policy of the hub with one of ``rights``.

        ``path`` is what follows the hub's host in the resource that is asked for. Raises UnauthorizedAccessError; its
        report is stored.
        """
        claim = ServiceClaim(hub.name, tuple(rights))
        held = max(self._granting(hub, claim.rights), key=_end, default=None)
        if held is None and (held := self._newest()) is not None and _is_of_a_device(held) and not path:
            path = _SERVICE_PATH  # any that is no device's: the report says that the token is for something else
        await self._require(hub, _text(held), path, claim.rights, held.token.key_name if held else "")
        if self._unfollow_hubs is None and not self._over:
            self._unfollow_hubs = self._services.hubs.follow(self._hubs_changed)
        return claim

    async def _require(self, hub: Hub, text: str, path: Sequence[str], rights: Sequence[Right], subject: str) -> None:
        credential = self._credential(text)
        attempt = Attempt(
            "hub", hub.name, "connect", subject[:_LONGEST_SUBJECT], credential.describe(), credential.peer
        )
        hosts = tuple(dict.fromkeys((hub.host_name, self.host or hub.host_name)))
        await self._services.access.require(attempt, credential, hub.policies, hosts, path, rights)

    def _credential(self, text: str) -> Credential:
        return Credential(self.certificates, text, self._describe())

    def _hub(self, name: str = "") -> Hub:
        """By its short name, else as the connection's host. Raises UnauthorizedAccessError."""
        hubs = self._services.hubs
        short = name.partition(".")[0]
        found = hubs.find(name) or hubs.find(short) if name else None
        try:
            return found or hubs.by_host(self.host)
        except UnknownHubError:
            raise UnauthorizedAccessError from None

    # Which token counts

    def _covering(self, hub: Hub, device_id: str, module_id: str) -> _Held | None:
        """The token to judge a device by. One for something else is better than none: the report then says so."""
        covering = max(self._all_covering(hub, device_id, module_id), key=_end, default=None)
        if covering is None and not self.certificates:
            return self._newest()
        return covering

    def _all_covering(self, hub: Hub, device_id: str, module_id: str) -> Iterator[_Held]:
        path = ("devices", device_id, "modules", module_id) if module_id else ("devices", device_id)
        own = self._devices.get(path)
        if own is not None:
            yield own
        hosts = (hub.host_name, self.host)
        others: Iterable[_Held] = self._policies.values()
        if own is None:  # in another case, or with something behind it (hub-device.md 2.2)
            others = (*others, *self._devices.values())
        for held in others:
            policy = bool(held.token.key_name)
            if any(covers(held.token.resource, (host, *path), prefix=policy) for host in hosts):
                yield held

    def _granting(self, hub: Hub, rights: Sequence[Right]) -> Iterator[_Held]:
        for held in self._policies.values():
            policy = hub.policies.get(held.token.key_name)
            if policy is None or _is_of_a_device(held) or not any(map(policy.grants, rights)):
                continue
            if signature_matches(held.token, policy.keys):
                yield held

    def _newest(self) -> _Held | None:
        return next(reversed(self._policies.values()), None) or next(reversed(self._devices.values()), None)

    # Its end

    def watch(self, what: Principal | ServiceClaim, on_end: OnEnd) -> Callable[[], None]:
        """Call ``on_end`` once, when what a link leans on is over, with the error to detach it with.

        What is returned ends the watch; a head calls it when it is closed.
        """
        if self._over:
            return _nothing
        key = _key(what)
        leaning = self._leaning_of(*key) if isinstance(what, Principal) else self._leanings.get(key)
        if leaning is None:
            leaning = self._leanings[key] = _Leaning()
        leaning.what = what
        leaning.watchers.append(on_end)
        if leaning.changes != leaning.judged_at and isinstance(what, Principal):
            self.judge_again(what)
        self._expect(self._end_of(what))

        def close() -> None:
            if on_end in leaning.watchers:
                leaning.watchers.remove(on_end)
                self._drop_unused(leaning, key)

        return close

    def judge_again(self, principal: Principal) -> None:
        """Something became of the identity: end what leans on it, unless it would be let in as it was.

        A change in the registry is noticed here; the holder of a ``Session`` passes on what else it is told.
        """
        leaning = self._leanings.get(_key(principal))
        if leaning is not None and leaning.watchers:
            leaning.judged_at = leaning.changes
            self._spawn(self._judge_again(leaning, principal))

    async def _judge_again(self, leaning: _Leaning, principal: Principal) -> None:
        identity = principal.identity
        held = self._covering(principal.hub, identity.device_id, identity.module_id)
        login = DeviceLogin(principal.hub, self.host, identity.device_id, identity.module_id)
        credential = self._credential(_text(held))
        if not await self._services.authentication.still_holds(login, credential, principal):
            self._finish(leaning, UnauthorizedAccessError())

    def deadline(self) -> int | None:
        """When to call ``expire`` (microseconds), or None."""
        return self._deadline

    def expire(self, now: int) -> None:
        """End what has lapsed."""
        if self._deadline is not None and now >= self._deadline:
            self._end_what_lapsed(now)

    def close(self) -> None:
        """The connection is gone; what is still being judged is followed no more."""
        self._over = True
        if self._unfollow_hubs is not None:
            self._unfollow_hubs()
            self._unfollow_hubs = None
        for key, leaning in list(self._leanings.items()):
            leaning.watchers.clear()
            leaning.judging = 0
            self._drop_unused(leaning, key)

    def _hubs_changed(self) -> None:
        """A hub may be gone, and a policy may have other keys or rights."""
        for what in [leaning.what for leaning in self._leanings.values() if isinstance(leaning.what, ServiceClaim)]:
            if not self._end_of(what):
                self._finish(self._leanings[what], UnauthorizedAccessError())

    def _end_what_lapsed(self, now: int) -> None:
        self._deadline = None
        for leaning in list(self._leanings.values()):
            if leaning.what is None or not leaning.watchers:
                continue
            end = self._end_of(leaning.what)
            if end is not None and end <= now:
                self._finish(leaning, TokenExpiredError())
            else:
                self._expect(end)

    def _end_of(self, what: Principal | ServiceClaim) -> int | None:
        if isinstance(what, ServiceClaim):
            hub = self._services.hubs.get(what.hub)
            return max(map(_end, self._granting(hub, what.rights)), default=0) if hub else 0
        if what.expiry is None:
            return None
        identity = what.identity
        return max(map(_end, self._all_covering(what.hub, identity.device_id, identity.module_id)), default=0)

    def _expect(self, end: int | None) -> None:
        if end is not None and (self._deadline is None or end < self._deadline):
            self._deadline = end
            self._moved()

    def _finish(self, leaning: _Leaning, error: ServiceError) -> None:
        watchers, leaning.watchers = leaning.watchers, []
        for on_end in watchers:
            on_end(error)
        self._drop_unused(leaning, None if leaning.what is None else _key(leaning.what))

    def _leaning_of(self, hub: str, device_id: str, module_id: str) -> _Leaning:
        key = (hub, device_id, module_id)
        found = self._leanings.get(key)
        if found is not None:
            return found
        if len(self._leanings) >= _MAXIMUM_LEANINGS:
            for other, unused in list(self._leanings.items()):
                self._drop_unused(unused, other)
        leaning = _Leaning()
        if self._over:
            return leaning
        self._leanings[key] = leaning

        def changed() -> None:
            leaning.changes += 1
            if isinstance(leaning.what, Principal):
                self.judge_again(leaning.what)

        leaning.unfollow = self._services.authentication.follow(hub, device_id, changed)
        return leaning

    def _drop_unused(self, leaning: _Leaning, key: object) -> None:
        if leaning.watchers or leaning.judging or self._leanings.get(key) is not leaning:
            return
        del self._leanings[key]
        if leaning.unfollow is not None:
            leaning.unfollow()


def _nothing() -> None:
    pass


def _key(what: Principal | ServiceClaim) -> Any:
    if isinstance(what, ServiceClaim):
        return what
    return what.hub.name, what.identity.device_id, what.identity.module_id


def _is_of_a_device(held: _Held) -> bool:
    """Is it for one device, which says nothing about the rest of the hub?"""
    return held.path[:1] == _MODULE_WORDS[:1]


def _end(held: _Held) -> int:
    return held.ends


def _text(held: _Held | None) -> str:
    return held.text if held is not None else ""


def _segments(resource: str) -> Path:
    """Of an audience: host first; scheme cut off, decoded as a whole and then each on its own (hub-device.md 2.2)."""
    text = unquote(resource)
    text = text.partition("://")[2] or text
    return tuple(unquote(piece) for piece in text.strip("/").split("/"))


def _is_registration(segments: Path) -> bool:
    match segments:
        case (_, word, _):
            return word.lower() == "registrations"
    return False


def _device_of(segments: Path) -> tuple[str, str] | None:
    """Device and module of ``{host}/devices/{d}[/modules/{m}]``; what follows is tolerated."""
    match segments:
        case (_, devices, device_id, modules, module_id, *_) if (devices.lower(), modules.lower()) == _MODULE_WORDS:
            return device_id, module_id
        case (_, devices, device_id, *_) if devices.lower() == _MODULE_WORDS[0]:
            return device_id, ""
    return None
