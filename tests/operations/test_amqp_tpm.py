"""The SASL mechanism ``TPM``, step by step (dps.md 3.7, 3.8): what is asked, what is taken, what is refused and why."""

import base64
from collections.abc import AsyncIterator
from random import Random
from urllib.parse import quote

import pytest
from tests.support.fix_amqp import AmqpClient, AmqpClients, amqp_front_end
from tests.support.fix_services import ID_SCOPE, Services
from tests.support.fix_tpm import SoftwareKey, SoftwareTpm, private_key, software_tpm

from muster.domain.credential import Credential
from muster.domain.errors import (
    ArgumentInvalidError,
    EnrollmentNotFoundError,
    ServiceError,
    UnauthorizedAccessError,
)
from muster.domain.sas import sign
from muster.domain.timestamp import HOUR, SECOND
from muster.domain.tpm import registration_id_of
from muster.domain.tpm_offer import TpmOffer
from muster.dps.attestations import DeviceLogin
from muster.frontends.amqp.dps import DpsLinks
from muster.frontends.amqp.tpm import TpmExchange
from muster.wire.amqp_frames import ProtocolHeader, encode_frame
from muster.wire.amqp_messages import Message
from muster.wire.amqp_performatives import (
    Accepted,
    Disposition,
    Rejected,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
)
from muster.wire.amqp_types import Value

TPM = software_tpm()
ID = registration_id_of(TPM.endorsement_key)
PEER = "127.0.0.1:5000 AMQP TLSv1.2"
MAXIMUM_SASL_FRAME = 512


def token(services: Services, key: bytes, registration_id: str = ID) -> bytes:
    resource = quote(f"{ID_SCOPE}/registrations/{registration_id}", safe="")
    expiry = (services.clock() + HOUR) // SECOND
    signature = quote(sign(base64.b64encode(key).decode(), f"{resource}\n{expiry}"), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=registration".encode()


def first(tpm: SoftwareTpm = TPM, registration_id: str = ID) -> bytes:
    return b"\0" + ID_SCOPE.encode() + b"\0" + registration_id.encode() + b"\0" + tpm.endorsement_key


def segments(content: bytes, size: int) -> list[bytes]:
    """With control bytes, as both sides make them."""
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return [bytes((0x80 | (0x40 if i == len(pieces) - 1 else 0) | i,)) + piece for i, piece in enumerate(pieces)]


class Peer:
    """A client in its dialogue."""

    def __init__(self, services: Services, tpm: SoftwareTpm = TPM) -> None:
        self.exchange = TpmExchange(services.tpm_dialogues, PEER)
        self.tpm = tpm
        self._started = False

    async def say(self, data: bytes) -> bytes:
        """The challenge in answer to this."""
        answer = await self.step(data)
        assert isinstance(answer, SaslChallenge)
        assert len(encode_frame(0, answer)) <= MAXIMUM_SASL_FRAME
        return answer.challenge

    async def step(self, data: bytes) -> SaslChallenge | SaslOutcome:
        body = SaslResponse(data) if self._started else SaslInit("TPM", data, f"{ID_SCOPE}/registrations/{ID}")
        self._started = True
        return await self.exchange.step(body)

    async def solve(self, registration_id: str = ID) -> bytes:
        """Up to the key of the challenge."""
        assert await self.say(first(self.tpm, registration_id)) == b"\0"
        part = await self.say(b"\0" + self.tpm.storage_root_key)
        blob, number = part[1:], 0
        while not part[0] & 0x40:
            assert part[0] == 0x80 | number
            part = await self.say(b"\0")
            blob += part[1:]
            number += 1
        assert part[0] == 0xC0 | number
        key, _ = self.tpm.activate(blob)
        return key


@pytest.fixture
def peer(services: Services) -> Peer:
    return Peer(services)


async def enroll(services: Services, tpm: SoftwareTpm = TPM, **more: str) -> None:
    keys = {"endorsementKey": base64.b64encode(tpm.endorsement_key).decode(), **more}
    await services.enroll_by(registration_id_of(tpm.endorsement_key), {"type": "tpm", "tpm": keys})


async def proven(services: Services, peer: Peer) -> Credential:
    """What the dialogue ends with."""
    assert await peer.step(b"\0" + token(services, await peer.solve())) == SaslOutcome(0)
    assert peer.exchange.proof is not None
    return peer.exchange.proof[1]


async def test_the_dialogue(peer: Peer, services: Services) -> None:
    """Two segments, 80 and C1, as one client insists."""
    assert await peer.say(first()) == b"\0"
    one = await peer.say(b"\0" + TPM.storage_root_key)
    two = await peer.say(b"\0")
    assert (one[0], two[0]) == (0x80, 0xC1)
    key, _ = TPM.activate(one[1:] + two[1:])
    text = token(services, key)
    assert await peer.step(b"\0" + text) == SaslOutcome(0)
    offer = TpmOffer(
        endorsement_key=base64.b64encode(TPM.endorsement_key).decode(),
        storage_root_key=base64.b64encode(TPM.storage_root_key).decode(),
    )
    assert peer.exchange.proof == (DeviceLogin(ID_SCOPE, ID), Credential((), text.decode(), PEER, offer))
    assert await services.reports.find(ID) == []


async def test_segments_of_the_client(peer: Peer, services: Services) -> None:
    """Whatever does not fit a frame (dps.md 3.7)."""
    long = "x" * 128
    *early, last = segments(first(registration_id=long), 200)
    assert len(early) == 2
    for segment in early:
        assert await peer.say(segment) == b"\0"
    assert await peer.say(last) == b"\0"
    *early, last = segments(TPM.storage_root_key, 160)
    for segment in early:
        assert await peer.say(segment) == b"\0"
    one = await peer.say(last)
    key, _ = TPM.activate(one[1:] + (await peer.say(b"\0"))[1:])
    assert await peer.step(b"\0" + token(services, key, long)) == SaslOutcome(0)
    assert peer.exchange.proof is not None
    assert peer.exchange.proof[0] == DeviceLogin(ID_SCOPE, long)


async def test_a_blob_of_more_than_two_parts(services: Services) -> None:
    """Longer keys than clients make; each part still fits its frame."""
    endorsement = SoftwareKey(private_key(0, 3072), attributes=0x000300B2, policy=TPM.endorsement.policy)
    peer = Peer(services, SoftwareTpm(endorsement, SoftwareKey(private_key(1, 3072))))
    assert await peer.say(segments(first(peer.tpm), 470)[0]) == b"\0"
    assert await peer.say(segments(first(peer.tpm), 470)[1]) == b"\0"
    *early, last = segments(peer.tpm.storage_root_key, 470)
    for segment in early:
        assert await peer.say(segment) == b"\0"
    parts = [await peer.say(last)]
    while not parts[-1][0] & 0x40:
        parts.append(await peer.say(b"\0"))
    assert [part[0] for part in parts] == [0x80, 0x81, 0xC2]
    key, _ = peer.tpm.activate(b"".join(part[1:] for part in parts))
    assert await peer.step(b"\0" + token(services, key)) == SaslOutcome(0)


@pytest.mark.parametrize(
    "said",
    [
        [b""],
        [b"\0"],
        [b"\0scope"],
        [b"\0scope\0id"],
        [b"\0\xff\xfe\0id\0ek"],
        [b"\x81part"],
        [b"\x80part", b"\x80part"],
        [b"\x80part", b"\xc2part"],
        [b"\x80part", b"\0whole"],
        [b"\x80" + b"x" * 2048],
        [first(), b"\0" + TPM.storage_root_key, b"\0more"],
    ],
)
async def test_what_is_no_step(peer: Peer, said: list[bytes]) -> None:
    for data in said[:-1]:
        await peer.say(data)
    with pytest.raises(ArgumentInvalidError, match="SASL TPM: "):
        await peer.step(said[-1])
    assert peer.exchange.proof is None


async def test_nothing_comes_behind_the_token(peer: Peer, services: Services) -> None:
    await proven(services, peer)
    with pytest.raises(ArgumentInvalidError):
        await peer.step(b"\0again")


async def refusal(services: Services, peer: Peer, data: bytes) -> list[str]:
    """The checks that the report of a refused step names."""
    with pytest.raises(UnauthorizedAccessError) as caught:
        await peer.step(data)
    assert peer.exchange.proof is None
    assert caught.value.tracking_id is not None
    (report,) = await services.reports.find(caught.value.tracking_id)
    assert (report.operation, report.subject, report.peer) == ("connect", ID, PEER)
    assert report.answer == "SASL outcome 1 (auth)"
    assert report.credential.startswith("a TPM")
    return [check.id for check in report.checks if check.outcome == "refused"]


async def test_a_token_that_the_tpm_did_not_sign(peer: Peer, services: Services) -> None:
    key = await peer.solve()
    assert await refusal(services, peer, b"\0" + token(services, key[::-1])) == ["sas.signature"]


async def test_a_token_for_another_registration(peer: Peer, services: Services) -> None:
    key = await peer.solve()
    assert await refusal(services, peer, b"\0" + token(services, key, "other")) == ["sas.audience"]


async def test_no_token(peer: Peer, services: Services) -> None:
    await peer.solve()
    assert await refusal(services, peer, b"\0") == ["sas.format"]


async def test_keys_of_no_tpm(peer: Peer, services: Services) -> None:
    await peer.say(first())
    assert await refusal(services, peer, b"\0" + bytes(300)) == ["tpm.endorsement-key"]


async def test_it_registers_without_keys_in_the_body(peer: Peer, services: Services) -> None:
    """One client sends none, another the same again (dps.md 3.3)."""
    await enroll(services)
    credential = await proven(services, peer)
    login = DeviceLogin(ID_SCOPE, ID, "2019-03-31")
    operation = await services.registrations.register(login, credential, b"")
    await services.registrations.stop(within=60)
    done = await services.registrations.status(login, operation.registration.operation_id)
    assert (done.registration.status, done.registration.device_id) == ("assigned", ID)
    key, _ = TPM.activate(base64.b64decode(done.registration.attestation["tpm"]["authenticationKey"]))
    identity, _ = await services.devices.get("hub", ID)
    assert base64.b64decode(identity.primary_key) == key
    enrollment = await services.enrollments.find(ID_SCOPE, ID)
    assert enrollment is not None
    assert base64.b64decode(enrollment.mechanism.storage_root_key) == TPM.storage_root_key
    poll = await services.registrations.poll(login, credential, operation.registration.operation_id)
    assert poll.registration.status == "assigned"


async def registration(services: Services, credential: Credential, body: bytes = b"", of: str = ID) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await services.registrations.register(DeviceLogin(ID_SCOPE, of), credential, body)
    return caught.value


async def test_other_keys_in_the_body(peer: Peer, services: Services) -> None:
    await enroll(services)
    credential = await proven(services, peer)
    error = await registration(services, credential, b'{"tpm":{"endorsementKey":"AAAA"}}')
    assert isinstance(error, ArgumentInvalidError)


async def test_a_tpm_that_nobody_enrolled_is_told_so_when_it_registers(peer: Peer, services: Services) -> None:
    """404201, which a SASL outcome could not say (dps.md 4.6)."""
    error = await registration(services, await proven(services, peer))
    assert isinstance(error, EnrollmentNotFoundError)
    (report,) = await services.reports.find(error.tracking_id or "")
    assert [check.id for check in report.checks if check.outcome == "refused"] == ["enrollment.exists-for-tpm"]


async def test_another_tpm_than_the_enrolled_one(services: Services) -> None:
    """It has shown that it is itself, and that is not enough."""
    await enroll(services)
    stranger = Peer(services, software_tpm(1))
    assert await stranger.step(b"\0" + token(services, await stranger.solve())) == SaslOutcome(0)
    assert stranger.exchange.proof is not None
    error = await registration(services, stranger.exchange.proof[1])
    assert isinstance(error, UnauthorizedAccessError)
    (report,) = await services.reports.find(error.tracking_id or "")
    assert [check.id for check in report.checks if check.outcome == "refused"] == ["tpm.endorsement-key"]


async def test_a_tpm_is_no_key(peer: Peer, services: Services) -> None:
    """The enrollment attests by a symmetric key."""
    key = {"primaryKey": base64.b64encode(bytes(32)).decode(), "secondaryKey": base64.b64encode(bytes(32)).decode()}
    await services.enroll_by(ID, {"type": "symmetricKey", "symmetricKey": key})
    error = await registration(services, await proven(services, peer))
    (report,) = await services.reports.find(error.tracking_id or "")
    (refused,) = [check for check in report.checks if check.outcome == "refused"]
    assert refused.id == "enrollment.attestation"


class TestOnAConnection:
    """The same with the frames around it."""

    @pytest.fixture
    async def clients(self, services: Services) -> AsyncIterator[AmqpClients]:
        dps = DpsLinks(services.registrations, services.tpm_dialogues, services.clock)
        clients = AmqpClients(services, amqp_front_end(services, (dps.open,), dps.begin_tpm))
        yield clients
        await clients.finish()

    async def log_in(self, clients: AmqpClients, services: Services, *, honest: bool = True) -> AmqpClient:
        """Up to the outcome."""
        client = clients.connect(server_name=None)
        await client.send(ProtocolHeader(3))
        await client.receive_header()
        mechanisms = await client.receive(SaslMechanisms)
        assert "TPM" in mechanisms.sasl_server_mechanisms
        await client.send(SaslInit("TPM", first(), f"{ID_SCOPE}/registrations/{ID}"))
        assert (await client.receive(SaslChallenge)).challenge == b"\0"
        await client.send(SaslResponse(b"\0" + TPM.storage_root_key))
        blob = (await client.receive(SaslChallenge)).challenge[1:]
        await client.send(SaslResponse(b"\0"))
        blob += (await client.receive(SaslChallenge)).challenge[1:]
        key, _ = TPM.activate(blob)
        await client.send(SaslResponse(b"\0" + token(services, key if honest else key[::-1])))
        outcome = await client.receive(SaslOutcome)
        assert outcome.code == (0 if honest else 1)
        return client

    async def ask(self, client: AmqpClient, registration_id: str) -> Disposition:
        """What becomes of a register request."""
        address = f"{ID_SCOPE}/registrations/{registration_id}"
        await client.link(address, sender=False)
        link = await client.link(address, sender=True)
        kind: dict[Value, Value] = {"iotdps-operation-type": "iotdps-register"}
        await client.transfer(link, Message(application_properties=kind))
        return await client.receive(Disposition)

    async def test_it_registers(self, clients: AmqpClients, services: Services) -> None:
        await enroll(services)
        client = await self.log_in(clients, services)
        await client.open("global.example.net")
        assert (await self.ask(client, ID.upper())).state == Accepted()

    async def test_the_proof_counts_for_no_other_registration(self, clients: AmqpClients, services: Services) -> None:
        keys = {"endorsementKey": base64.b64encode(TPM.endorsement_key).decode()}
        await services.enroll_by("other", {"type": "tpm", "tpm": keys})
        client = await self.log_in(clients, services)
        await client.open("global.example.net")
        state = (await self.ask(client, "other")).state
        assert isinstance(state, Rejected)
        assert state.error is not None
        assert state.error.condition == "amqp:unauthorized-access"

    async def test_a_wrong_signature_ends_the_connection(self, clients: AmqpClients, services: Services) -> None:
        client = await self.log_in(clients, services, honest=False)
        await client.is_closed()
        (report,) = await services.reports.find(ID)
        assert [check.id for check in report.checks if check.outcome == "refused"] == ["sas.signature"]

    async def test_the_dialogue_cannot_be_cut_short(self, clients: AmqpClients) -> None:
        client = clients.connect()
        await client.send(ProtocolHeader(3))
        await client.receive_header()
        await client.receive(SaslMechanisms)
        await client.send(SaslInit("TPM", b"\0nonsense"))
        assert (await client.receive(SaslOutcome)).code == 1
        await client.is_closed()


async def test_whatever_a_client_says_is_answered_or_refused(services: Services) -> None:
    """And nothing else happens, in any number of steps."""
    random = Random(1)
    starts = [first(), first()[:40], b"\0", b"\x80", b"\xc0", b"\xc1", b""]
    for _ in range(300):
        peer = Peer(services)
        for _ in range(random.randrange(1, 6)):
            data = random.choice(starts) + random.randbytes(random.choice([0, 0, 1, 300]))
            try:
                answer = await peer.step(data)
            except ServiceError:
                break
            assert isinstance(answer, SaslChallenge)
        assert peer.exchange.proof is None
