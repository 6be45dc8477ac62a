"""The management plane with the unmodified azure-mgmt-iothubprovisioningservices (dps.md 7)."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkError
from tests.support.fix_pki import Identity, ec_key, intermediate, make_certificate, root
from tests.support.fix_server import DEVELOPMENT_KEY, ID_SCOPE, MusterServer, StartServer, free_address

Management = Callable[..., Any]
OWNER = {"key_name": "provisioningserviceowner", "rights": "ServiceConfig, DeviceConnect, EnrollmentWrite"}


@pytest.fixture(scope="module")
def token(muster: MusterServer) -> str:
    return muster.cli("token").stdout.strip()


@pytest.fixture
def management(muster: MusterServer, clients: OpenClient, token: str) -> Management:
    """``management("get")`` asks the SDK about the one provisioning service."""
    sdk = clients("management.py")

    def ask(operation: str, *, token: str = token, name: str | None = muster.address, **arguments: object) -> Any:
        named = {} if name is None else {"name": name}
        return sdk.call(operation, host=muster.address, token=token, **named, **arguments)

    return ask


def refusal(management: Management, operation: str, **arguments: object) -> SdkError:
    with pytest.raises(SdkError) as caught:
        management(operation, **arguments)
    return caught.value


class TestResource:
    def test_the_resource(self, management: Management, muster: MusterServer) -> None:
        resource = management("get")
        properties = resource["properties"]
        assert resource["name"] == properties["serviceOperationsHostName"] == muster.address
        assert (properties["idScope"], properties["state"]) == (ID_SCOPE, "Active")
        assert properties["deviceProvisioningHostName"] == muster.address
        assert resource["resourcegroup"] == "line-a"
        assert resource["subscriptionid"] == "5ca1ab1e-0000-0000-0000-000000000001"
        assert DEVELOPMENT_KEY not in str(resource)

    def test_lists(self, management: Management) -> None:
        everywhere, here = management("lists", name=None)
        assert [item["id"] for item in here] == [management("get")["id"]]
        assert [item["resourcegroup"] for item in everywhere] == ["muster"]

    def test_what_can_only_be_read(self, management: Management) -> None:
        seen = management("looks")
        assert seen["skus"] == [{"name": "S1"}]
        assert seen["links"] == {"value": []}
        assert seen["connections"] == []
        assert seen["operation"] == {"status": "Succeeded"}
        assert any(item["name"].endswith("provisioningServices/Write") for item in seen["operations"])

    def test_names(self, management: Management, muster: MusterServer) -> None:
        assert management("check_name", name="fresh") == {"nameAvailable": True, "reason": "Invalid", "message": None}
        assert management("check_name", name=muster.address)["reason"] == "AlreadyExists"

    def test_tags(self, management: Management) -> None:
        assert management("tag", tags={"line": "a"})["tags"] == {"line": "a"}
        assert management("get")["tags"] == {"line": "a"}
        assert management("change")["tags"] == {"line": "a"}
        assert management("tag", tags={})["tags"] == {}

    def test_a_change_is_done_at_once(self, management: Management) -> None:
        changed = management("change", allocation_policy="GeoLatency")
        assert changed["properties"]["allocationPolicy"] == "GeoLatency"
        assert changed["properties"]["provisioningState"] == "Succeeded"
        assert changed["seconds"] < 30, "the SDK waits 30 s before it asks again"
        assert management("change", allocation_policy="Hashed")["properties"]["allocationPolicy"] == "Hashed"

    def test_a_change_of_something_that_changed_meanwhile(self, management: Management) -> None:
        old = management("get")["etag"]
        management("change")
        error = refusal(management, "change", etag=old)
        assert error.status == 412
        assert "(PreconditionFailed)" in str(error)

    def test_what_there_is_not(self, management: Management) -> None:
        error = refusal(management, "get", name="other")
        assert (error.kind, error.status) == ("ResourceNotFoundError", 404)
        assert "(ResourceNotFound) The Resource 'Microsoft.Devices/provisioningServices/other'" in str(error)

    def test_the_one_instance(self, management: Management) -> None:
        assert "takes no second one" in str(refusal(management, "create", name="second"))
        assert "is the only provisioning service" in str(refusal(management, "delete"))
        management("delete", name="other")


class TestToken:
    def test_the_sdk_shows_what_is_wrong(self, management: Management, start_server: StartServer) -> None:
        foreign = start_server().cli("token").stdout.strip()
        error = refusal(management, "get", token=foreign)
        assert (error.kind, error.status) == ("ClientAuthenticationError", 401)
        assert "another server's token. For a token that this server takes, run `muster token`" in str(error)

    def test_a_token_has_an_end(self, start_server: StartServer, clients: OpenClient) -> None:
        """By the clock of the server, which is far ahead."""
        server = start_server("--clock", "+400d")
        sdk = clients("management.py")
        token = server.cli_json("token", "--hours", "2")
        later = datetime.now(UTC).timestamp() + 400 * 86400
        assert abs(token["expires_on"] - later - 7200) < 120
        answer = HttpsClient(server).request(
            "GET",
            "/subscriptions/s/providers/Microsoft.Devices/provisioningServices?api-version=2022-02-05",
            authorization=f"Bearer {token['accessToken']}",
        )
        assert answer.status == 200
        assert sdk is not None

    def test_it_outlives_a_restart(self, start_server: StartServer) -> None:
        server = start_server()
        token = server.cli("token").stdout.strip()
        server.stop()
        server.start()
        target = "/subscriptions/s/providers/Microsoft.Devices/IotHubs?api-version=2023-06-30"
        assert HttpsClient(server).request("GET", target, authorization=f"Bearer {token}").status == 200


class TestPolicies:
    def test_keys(self, management: Management) -> None:
        rules = management("keys")
        owner = {rule["keyName"]: rule for rule in rules}["provisioningserviceowner"]
        assert owner["rights"] == "ServiceConfig, DeviceConnect, EnrollmentWrite"
        assert management("key", policy="provisioningserviceowner") == owner
        assert refusal(management, "key", policy="nobody").status == 404

    def test_a_policy_is_made_used_and_deleted(
        self, management: Management, muster: MusterServer, https: HttpsClient
    ) -> None:
        owner = {**OWNER, "primary_key": DEVELOPMENT_KEY, "secondary_key": DEVELOPMENT_KEY}
        reader = {"key_name": "reader", "rights": "EnrollmentRead,RegistrationStatusRead"}
        shown = management("change", policies=[owner, reader])["properties"]["authorizationPolicies"]
        made = {rule["keyName"]: rule for rule in shown}["reader"]
        assert made["rights"] == "EnrollmentRead, RegistrationStatusRead"
        signed = https.token("reader", made["primaryKey"])
        query = "/enrollments/query?api-version=2021-10-01"
        assert https.request("POST", query, {"query": "*"}, authorization=signed).status == 200
        assert https.request("DELETE", "/enrollments/x?api-version=2021-10-01", authorization=signed).status == 401
        management("change", policies=[owner])
        assert https.request("POST", query, {"query": "*"}, authorization=signed).status == 401
        assert "reader" not in muster.cli("policy", "list").stdout

    def test_a_new_owner_key_is_known_to_the_commands(self, start_server: StartServer) -> None:
        server = start_server()
        before = server.provisioning_connection_string
        server.cli("policy", "renew", "provisioningserviceowner")
        server.cli("policy", "renew", "provisioningserviceowner", "--secondary")
        assert server.cli_json("enrollment", "list") == []
        assert server.provisioning_connection_string != before
        refused = server.cli("enrollment", "list", "--connection-string", before, check=False)
        assert refused.returncode == 1
        assert "401002" in refused.stderr

    def test_the_owner_stays(self, management: Management) -> None:
        error = refusal(management, "change", policies=[{"key_name": "reader", "rights": "EnrollmentRead"}])
        assert error.status == 400
        assert "(ArgumentInvalid) The policy provisioningserviceowner has to stay" in str(error)


class TestLinkedHubs:
    def test_a_hub_of_this_muster_is_linked_and_unlinked(self, management: Management, muster: MusterServer) -> None:
        address = free_address()
        hub = muster.cli_json("hub", "add", "north", "--host", address, "--no-link")
        link = {"connection_string": hub["connectionString"], "location": "local", "allocation_weight": 7}
        own = {"name": muster.address}
        hubs = management("change", hubs=[own, link])["properties"]["iotHubs"]
        assert [item["name"] for item in hubs] == [muster.address, address]
        assert hubs[1]["allocationWeight"] == 7
        assert hubs[1]["connectionString"].endswith(";SharedAccessKey=****")
        muster.cli("linked-hub", "set", "north", "--latency", "12.5")
        kept = management("change", hubs=[own, {"name": address}])["properties"]["iotHubs"]
        assert kept[1] == {**hubs[1], "latencyMilliseconds": 12.5}
        assert [item["name"] for item in management("change", hubs=[own])["properties"]["iotHubs"]] == [muster.address]
        muster.cli("hub", "remove", "north")

    def test_another_hub_is_refused_with_the_reason(self, management: Management) -> None:
        foreign = f"HostName=x.azure-devices.net;SharedAccessKeyName=iothubowner;SharedAccessKey={DEVELOPMENT_KEY}"
        error = refusal(management, "change", hubs=[{"connection_string": foreign, "location": "westus"}])
        assert error.status == 400
        assert "'x.azure-devices.net' is not one of this Muster, and only its own can be linked" in str(error)


class TestCertificates:
    def prove(self, management: Management, name: str, authority: Identity) -> Any:
        """The whole way: upload, code, proof, verification."""
        uploaded = management("upload", certificate=name, pem=authority.certificate_pem.decode())
        begun = management("generate", certificate=name, etag=uploaded["etag"])
        code = begun["properties"]["verificationCode"]
        assert base64.b64decode(begun["properties"]["certificate"]) == authority.certificate
        proof = Identity(make_certificate(code, key=ec_key("proof"), issuer=authority), ec_key("proof"))
        pem = proof.certificate_pem.decode()
        return management("verify", certificate=name, etag=begun["etag"], proof=pem)

    @pytest.mark.parametrize("authority", [root, intermediate])
    def test_proof_of_possession(self, management: Management, authority: Callable[[], Identity]) -> None:
        name = f"proved-{authority.__name__}"
        verified = self.prove(management, name, authority())
        assert verified["properties"]["isVerified"] is True
        found = management("certificate", certificate=name)
        assert found["properties"]["isVerified"] is True
        assert found["properties"]["subject"] in ("Plant Root", "Line A Intermediate")
        assert re.fullmatch(r"[0-9A-F]{40}", found["properties"]["thumbprint"])
        expiry, created, updated = map(datetime.fromisoformat, found["dates"])
        assert created <= updated < expiry
        assert name in [item["name"] for item in management("certificates")]
        management("remove", certificate=name, etag=found["etag"])
        assert refusal(management, "certificate", certificate=name).kind == "ResourceNotFoundError"
        management("remove", certificate=name)

    def test_what_proves_nothing(self, management: Management) -> None:
        uploaded = management("upload", certificate="unproved", pem=root().certificate_pem.decode())
        begun = management("generate", certificate="unproved", etag=uploaded["etag"])
        impostor = make_certificate(begun["properties"]["verificationCode"], key=ec_key("proof"), issuer=intermediate())
        pem = Identity(impostor, ec_key("proof")).certificate_pem.decode()
        error = refusal(management, "verify", certificate="unproved", etag=begun["etag"], proof=pem)
        assert error.status == 400
        assert "does not prove possession: its issuer is not the subject of the CA certificate" in str(error)
        assert management("certificate", certificate="unproved")["properties"]["isVerified"] is False

    def test_etags(self, management: Management) -> None:
        pem = root().certificate_pem.decode()
        first = management("upload", certificate="tagged", pem=pem, verified=True)
        assert first["properties"]["isVerified"] is True
        assert refusal(management, "upload", certificate="tagged", pem=pem).status == 412
        second = management("upload", certificate="tagged", pem=pem, etag=first["etag"])
        assert second["properties"]["isVerified"] is True
        for operation, more in (("upload", {"pem": pem}), ("generate", {}), ("verify", {"proof": pem}), ("remove", {})):
            error = refusal(management, operation, certificate="tagged", etag=first["etag"], **more)
            assert error.status == 412, operation

    def test_what_is_no_certificate(self, management: Management) -> None:
        error = refusal(management, "upload", certificate="broken", pem="nonsense")
        assert "The CA certificate cannot be read" in str(error)


class TestCommands:
    """The same by ``muster certificate``, whose proof the server has to take."""

    @pytest.mark.parametrize("authority", [root, intermediate])
    def test_upload_and_proof_in_one(self, muster: MusterServer, authority: Callable[[], Identity]) -> None:
        identity = authority()
        certificate, key = identity.write(muster.directory, f"cli-{authority.__name__}")
        muster.cli("certificate", "upload", str(certificate), "--verify", "--key", str(key))
        shown = muster.cli_json("certificate", "show", certificate.stem)
        assert shown["properties"]["isVerified"] is True
        again = muster.cli("certificate", "upload", str(certificate), check=False)
        assert again.returncode == 1
        assert "replace it with --update" in again.stderr
        muster.cli("certificate", "delete", certificate.stem)

    def test_the_proof_by_hand(self, muster: MusterServer) -> None:
        certificate, _ = root().write(muster.directory, "by-hand")
        muster.cli("certificate", "upload", str(certificate))
        code = muster.cli("certificate", "generate-code", "by-hand").stdout.strip()
        proof = Identity(make_certificate(code, key=ec_key("proof"), issuer=root()), ec_key("proof"))
        file = muster.directory / "proof.pem"
        file.write_bytes(proof.certificate_pem)
        assert "Verified   : yes" in muster.cli("certificate", "verify", "by-hand", str(file)).stdout

    def test_another_key_is_told_before_it_is_sent(self, muster: MusterServer) -> None:
        certificate, _ = root().write(muster.directory, "wrong-key")
        other = muster.directory / "other.key"
        other.write_bytes(Identity(b"", ec_key("other")).key_pem)
        result = muster.cli("certificate", "upload", str(certificate), "--verify", "--key", str(other), check=False)
        assert result.returncode == 1
        assert "the private key does not belong to the certificate of the CA" in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_key_with_a_pass_phrase(self, muster: MusterServer) -> None:
        identity = Identity(root().certificate, root().key, pass_phrase="1234")
        certificate, key = identity.write(muster.directory, "locked")
        arguments = ["certificate", "upload", str(certificate), "--verify", "--key", str(key)]
        refused = muster.cli(*arguments, "--pass-phrase", "4321", check=False)
        assert refused.returncode == 1
        assert "pass phrase is wrong" in refused.stderr
        secret = muster.directory / "secret"
        secret.write_text("1234\n")
        muster.cli(*arguments, "--update", "--pass-phrase-file", str(secret))
        assert muster.cli_json("certificate", "show", "locked")["properties"]["isVerified"] is True
