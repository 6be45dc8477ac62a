"""``muster tutorial``: the tutorial "Create an X.509 certificate and enroll your device", run step by step.

Every command that is shown really runs, and every claim is checked: exit code 0 means that each step worked. The
device is a separate process that knows nothing of Muster. Not here: how things are shown (``cli/narrator.py``).
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from muster.cli.failure import CommandError
from muster.cli.narrator import Companion, Narrator, finish, stop
from muster.cli.options import ConnectionString, DataDirectory, connect

app = typer.Typer(rich_markup_mode=None, add_completion=False)

PASS_PHRASE = "1234"  # noqa: S105 - the tutorial's own, told to everyone
EVENT_SECONDS = 15.0
PAGE_SECONDS = 10.0
DEVICE_SECONDS = 30.0
DEVICE = "device.py"
LISTENER = "both_ways.py"
BACK_END = "back_end.py"
SDK = "azure.iot.device"
BACK_END_SDK = "azure.iot.hub"
SETTINGS_FILE = ".env"
BACK_END_FILE = "back_end.env"

_ASSIGNED = re.compile(r"^Assigned to hub (?P<hub>\S+) as device (?P<device>\S+)", re.MULTILINE)
_SENT = re.compile(r"^Sent message (?P<id>\S+): (?P<body>\{.*\})$", re.MULTILINE)
STRANGER_FILE = "stranger.env"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the story is about: the server, the device's name and files, and the Python that runs the device.

    ``back_end``: that Python has the package of back ends too.
    """

    host: str
    id_scope: str
    hub: str
    portal: str
    portal_is_open: bool
    trust_file: str
    registration_id: str
    certificate: str
    key: str
    python: str
    back_end: bool
    openssl: bool
    fast: bool


@app.command()
def tutorial(
    *,
    directory: Annotated[Path, typer.Option(help="Where certificates, .env and the device program go.")] = Path(
        "muster-tutorial"
    ),
    registration_id: Annotated[str, typer.Option(help="Name of the device.")] = "raspberrypi-b",
    python: Annotated[
        str | None,
        typer.Option(
            help="Python with the azure-iot-device package, for the device; else one that has it is looked for.",
            show_default=False,
        ),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Make an EC key: RSA with 4096 bits takes a while.")] = False,
    no_openssl: Annotated[
        bool, typer.Option("--no-openssl", help="Make the certificate with muster cert, not with openssl.")
    ] = False,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Enroll and run a first device, step by step.

    Needs a running server (muster up) and the package azure-iot-device.
    """
    client = connect(connection_string, data_directory)
    public = client.server_status()
    interpreter = find_device_python(python)
    openssl = not no_openssl and shutil.which("openssl") is not None
    status = client.target.status or {}
    name = "raspberrypi2" if openssl else registration_id
    settings = Settings(
        host=str(public["provisioningHost"]),
        id_scope=str(public["idScope"]),
        hub=str(public["hubs"][0]["host"]),
        portal=str(status.get("portal") or "http://localhost:8080/").partition("?")[0],
        portal_is_open=bool(status.get("wellKnownIdentity")),
        trust_file=str(status.get("trustFile") or client.target.ca_file or ""),
        registration_id=registration_id,
        certificate=f"certs/{name}.pem",
        key=f"certs/{name}.key",
        python=interpreter,
        back_end=_has_package(interpreter, BACK_END_SDK),
        openssl=openssl,
        fast=fast,
    )
    directory.mkdir(parents=True, exist_ok=True)
    story = Story(settings, Narrator(directory.absolute(), _environment(connection_string, status)))
    story.tell()


class Story:
    """The steps of DESIGN.md 1 that there are commands for, in their order."""

    def __init__(self, settings: Settings, narrator: Narrator) -> None:
        self._settings = settings
        self._narrator = narrator

    def tell(self) -> None:
        """Run every step. Raises CommandError at the first that does not do what the tutorial promises."""
        self._narrator.say(
            f"This runs against the provisioning service {self._settings.host} with id scope"
            f" {self._settings.id_scope}. Every command is shown as you would type it in {self._narrator.directory}."
        )
        self._make_certificate()
        self._enroll()
        self._verify_enrollment()
        self._configure_device()
        sent = self._run_device()
        self._converse()
        self._verify_registration()
        self._provoke_refusal()
        self._end(sent)

    def _make_certificate(self) -> None:
        self._narrator.step("a certificate for the device")
        certificate = self._narrator.directory / self._settings.certificate
        if certificate.exists() and (self._narrator.directory / self._settings.key).exists():
            self._narrator.say(f"{self._settings.certificate} is there from an earlier run and is used again.")
            return
        self._narrator.say(
            "The device gets a key pair of its own and a certificate it signed itself. The common name (CN) is the"
            f" registration id. The key stays on the device; its pass phrase here is {PASS_PHRASE}, as in the tutorial."
        )
        certificate.parent.mkdir(exist_ok=True)
        if self._settings.openssl:
            self._narrator.show("mkdir certs; cd certs")
            arguments = openssl_arguments(self._settings)
            self._narrator.run(shlex.join(arguments), arguments, quiet=True, place="certs")
            self._narrator.show("cd ..")
            self._narrator.say(f"(-passout answers what openssl would ask: the pass phrase, {PASS_PHRASE}.)")
        else:
            kind = ["--key", "ec-p256"] if self._settings.fast else []
            self._muster("cert", "device", self._settings.registration_id, "--directory", "certs", *kind, *_PASS)

    def _enroll(self) -> None:
        self._narrator.step("enroll the device")
        if self._is_enrolled():
            self._narrator.say(
                f"{self._settings.registration_id} is enrolled with this certificate from an earlier run."
            )
            return
        self._narrator.say(
            "The operator gives the certificate, never the key, to the provisioning service. This is what the"
            " cmdlet Add-AzIoTDeviceProvisioningServiceEnrollment does, and it prints the same."
        )
        self._muster("enrollment", "create", "--certificate", self._settings.certificate, "--registration-id", self._id)

    def _is_enrolled(self) -> bool:
        """Whether the enrollment of an earlier run is there. Raises CommandError for one of another certificate."""
        arguments = [*_MUSTER, "enrollment", "show", self._id, "-o", "json"]
        found = self._narrator.ask(arguments)
        if found is None:
            return False
        slots = json.loads(found)["attestation"]["x509"]["clientCertificates"]
        if slots["primary"]["info"]["sha256Thumbprint"] != self._thumbprint():
            raise CommandError(
                f"{self._id} is enrolled already, with another certificate",
                f"remove it with `muster enrollment delete {self._id}`, or choose another --registration-id",
            )
        return True

    def _thumbprint(self) -> str:
        from muster.pki.certificate import read_certificates, sha256_thumbprint

        content = (self._narrator.directory / self._settings.certificate).read_bytes()
        return sha256_thumbprint(read_certificates(content)[0])

    def _verify_enrollment(self) -> None:
        self._narrator.step("verify the enrollment")
        listed = self._muster("enrollment", "list")
        _require(self._id in listed.split(), f"the list of enrollments does not have {self._id}")
        page = f"{self._settings.portal}enrollments"
        self._narrator.say(f"The portal has it too: {page} (Manage enrollments, Individual enrollments).")
        if self._settings.portal_is_open:
            _require(self._id in read_page(page), f"the portal page {page} does not have {self._id}")

    def _configure_device(self) -> None:
        self._narrator.step("environment variables for the device")
        self._narrator.say(
            "The device program reads where to register, and with what. SSL_CERT_FILE makes it trust this server;"
            " in the cloud that line goes."
        )
        self._write_variables(SETTINGS_FILE, self._settings)

    def _write_variables(self, name: str, settings: Settings) -> None:
        text = "".join(f"{variable}={value}\n" for variable, value in device_variables(settings).items())
        (self._narrator.directory / name).write_text(text, encoding="utf-8")
        self._narrator.run(f"cat {name}", ["cat", name])

    def _run_device(self) -> Mapping[str, Any]:
        self._narrator.step("run the device")
        self._narrator.say(
            "device.py uses the unmodified azure-iot-device package: it registers, connects to the hub it is assigned"
            " with the same certificate, and sends its host name and IP address. A second terminal follows what"
            f" arrives. (python is {self._settings.python} here.)"
        )
        shutil.copyfile(find_device_program(), self._narrator.directory / DEVICE)
        watch = ["events", "tail", "--device", self._id, "--count", "1", "-o", "json"]
        watcher = self._narrator.start(
            f"muster {shlex.join(watch)}     # in a second terminal", [*_MUSTER, *watch], "following events"
        )
        try:
            output = self._narrator.run("python device.py", [self._settings.python, DEVICE], advice=_ADVICE)
            arrived = finish(watcher, EVENT_SECONDS)
        finally:
            stop(watcher)
        return self._check_arrival(output, arrived)

    def _check_arrival(self, output: str, arrived: str | None) -> Mapping[str, Any]:
        """The event that arrived, which must be the one that the device sent, from the hub it was assigned."""
        assigned, sent = _ASSIGNED.search(output), _SENT.search(output)
        _require(assigned is not None and sent is not None, "the device did not say what it did")
        assert assigned is not None
        assert sent is not None
        _require(
            assigned["hub"] == self._settings.hub,
            f"the device was assigned to {assigned['hub']}, the hub is {self._settings.hub}",
        )
        _require(bool(arrived), f"nothing arrived within {EVENT_SECONDS:.0f} s")
        event: Mapping[str, Any] = json.loads(arrived or "{}")
        self._narrator.say(_SECOND_TERMINAL)
        print(f"  {(arrived or '').strip()}")
        _require(event["deviceId"] == assigned["device"], f"the event is of device {event['deviceId']}")
        _require(event["body"] == json.loads(sent["body"]), "what arrived is not what the device sent")
        _require(event["systemProperties"].get("message-id") == sent["id"], "another message arrived")
        return event

    def _converse(self) -> None:
        self._narrator.step("the hub and the device, in both directions")
        self._narrator.say(
            "both_ways.py registers as before and then listens: to messages from the cloud, to calls of its methods,"
            " and to the wishes in its twin. It runs in the second terminal."
        )
        shutil.copyfile(find_device_program(LISTENER), self._narrator.directory / LISTENER)
        with self._narrator.accompany(
            f"python {LISTENER}     # in a second terminal", [self._settings.python, LISTENER]
        ) as device:
            device.tell("Listening", DEVICE_SECONDS)
            self._send_message(device)
            self._call_method(device)
            self._change_twin(device)
            self._narrator.say("That is enough for now: its method stop ends the program.")
            self._muster("method", "invoke", self._id, "stop")
            device.tell("Disconnected", DEVICE_SECONDS)
            _require(device.end(DEVICE_SECONDS) == 0, f"{LISTENER} did not end well")

    def _send_message(self, device: Companion) -> None:
        self._narrator.say("A message from the cloud, which would wait for a device that is away:")
        settings = self._back_end_settings()
        if settings is None:
            self._muster("c2d", "send", self._id, GREETING)
        else:
            self._send_by_sdk(settings)
        self._narrator.say(_SECOND_TERMINAL)
        device.tell(f"Message from the cloud: {GREETING}", DEVICE_SECONDS)

    def _back_end_settings(self) -> str | None:
        """What a back end of the stock package needs to know; None where there is no such package, or no key for it."""
        settings = self._narrator.ask([*_MUSTER, "status", "-o", "env"]) if self._settings.back_end else None
        return settings if settings is not None and "IOTHUB_CONNECTION_STRING=" in settings else None

    def _send_by_sdk(self, settings: str) -> None:
        self._narrator.say(
            "back_end.py sends it with the unmodified azure-iot-hub package, over AMQP as every back end does;"
            f" `muster c2d send {self._id} '{GREETING}'` would do the same."
        )
        shutil.copyfile(find_device_program(BACK_END), self._narrator.directory / BACK_END)
        self._narrator.show(f"muster status -o env > {BACK_END_FILE}")
        file = self._narrator.directory / BACK_END_FILE
        file.touch(mode=0o600)
        file.write_text(settings, encoding="utf-8")
        arguments = [BACK_END, self._id, GREETING]
        self._narrator.run(shlex.join(["python", *arguments]), [self._settings.python, *arguments], advice=_ADVICE)

    def _call_method(self, device: Companion) -> None:
        self._narrator.say("A direct method, whose answer comes back at once:")
        shown = self._muster("method", "invoke", self._id, "blink", "--payload", '{"times": 3}')
        _require('{"blinked": 3}' in shown, "the answer of the device is another one")
        self._narrator.say(_SECOND_TERMINAL)
        device.tell("Method blink", DEVICE_SECONDS)

    def _change_twin(self, device: Companion) -> None:
        self._narrator.say("A wish in its twin, which the device fulfils and reports:")
        self._muster("twin", "update", self._id, "--desired", "interval=30", quiet=True)
        self._narrator.say(_SECOND_TERMINAL)
        device.tell('Reported: {"interval": 30}', DEVICE_SECONDS)
        shown = self._muster("twin", "show", self._id)
        _require(
            re.search(r"^Reported .*: \{\"interval\": 30\}", shown, re.MULTILINE) is not None,
            "the twin does not have what the device reported",
        )

    def _verify_registration(self) -> None:
        self._narrator.step("look at the registration")
        self._narrator.say("The provisioning service keeps a record of the registration, the hub a device identity.")
        shown = self._muster("registration", "show", self._id)
        _require("assigned" in shown.split(), "the registration is not assigned")
        shown = self._muster("device", "show", self._id)
        _require("selfSigned" in shown.split(), "the device identity does not have the certificate")

    def _provoke_refusal(self) -> None:
        self._narrator.step("a refusal, and why")
        self._narrator.say(
            "What if somebody else calls himself by that name? A second certificate with the same CN is not the one"
            " that is enrolled. The device is told no more than in the cloud; `muster why` tells the operator the rest."
        )
        make = ["cert", "device", self._id, "--directory", "certs/stranger", "--key", "ec-p256", "--force"]
        self._muster(*make, quiet=True)
        stranger = f"certs/stranger/{self._id}"
        self._write_variables(
            STRANGER_FILE, replace(self._settings, certificate=f"{stranger}.pem", key=f"{stranger}.key")
        )
        arguments = [self._settings.python, DEVICE, STRANGER_FILE]
        self._narrator.run(f"python device.py {STRANGER_FILE}", arguments, expected=1)
        shown = self._muster("why", self._id)
        _require("x509.thumbprint" in shown.split(), "`muster why` does not name the check that failed")

    def _end(self, event: Mapping[str, Any]) -> None:
        self._narrator.say(
            f"Done: {self._id} registered, was assigned to hub {self._settings.hub}, and its message is stored as"
            f" number {event['sequenceNumber']} of partition {event['partition']}."
        )
        self._narrator.say("Where to go next:")
        for command, purpose in (
            ("muster events tail", "everything that arrives, as it arrives"),
            ('muster query "SELECT * FROM devices"', "find devices by what is in their twins"),
            (f"muster cert inspect {self._settings.certificate}", "what is in a certificate, and would DPS take it"),
            (f"muster enrollment update {self._id} --disable", "what does the device say now?"),
            ("muster status -o env", "connection strings for your back end"),
        ):
            print(f"  {command}  # {purpose}")
        print(f"  {self._settings.portal}  # enrollments, arrivals and refusals, live")

    @property
    def _id(self) -> str:
        return self._settings.registration_id

    def _muster(self, *arguments: str, quiet: bool = False) -> str:
        return self._narrator.run(shlex.join(["muster", *arguments]), [*_MUSTER, *arguments], quiet=quiet)


GREETING = "Hello, device!"

_MUSTER = (sys.executable, "-m", "muster")
_PASS = ("--pass-phrase", PASS_PHRASE)
_SECOND_TERMINAL = "The second terminal prints:"
_ADVICE = "`muster why` may tell the reason"


def openssl_arguments(settings: Settings) -> list[str]:
    """The tutorial's command, to be run in ``certs``, with its question for the pass phrase answered."""
    kind = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if settings.fast else ["rsa:4096"]
    return [
        *("openssl", "req", "-outform", "PEM", "-x509", "-sha256", "-newkey", *kind),
        *("-keyout", Path(settings.key).name, "-out", Path(settings.certificate).name, "-days", "365"),
        *("-extensions", "usr_cert", "-addext", "extendedKeyUsage=clientAuth"),
        *("-subj", f"/CN={settings.registration_id}", "-passout", f"pass:{PASS_PHRASE}"),
    ]


def device_variables(settings: Settings) -> dict[str, str]:
    """The tutorial's variables, and the one that makes the device trust a private CA."""
    variables = {
        "DPS_HOST": settings.host,
        "DPS_SCOPEID": settings.id_scope,
        "DPS_REGISTRATIONID": settings.registration_id,
        "X509_CERT_FILE": settings.certificate,
        "X509_KEY_FILE": settings.key,
        "X509_PASS_PHRASE": PASS_PHRASE,
    }
    return variables | ({"SSL_CERT_FILE": settings.trust_file} if settings.trust_file else {})


def read_page(address: str) -> str:
    """The portal page under a plain HTTP ``address``. Raises CommandError."""
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=PAGE_SECONDS)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        page = response.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        raise CommandError(
            f"the portal does not answer on {address}: {error}", "look at the log of the server"
        ) from error
    finally:
        connection.close()
    if response.status != _OK:
        raise CommandError(f"the portal answers {response.status} on {address}", "look at the log of the server")
    return page


def find_device_python(named: str | None) -> str:
    """A Python that has azure-iot-device. Raises CommandError with how to get one."""
    if named is not None:
        candidates = [named]
    else:
        environments = (Path(name, "bin", "python") for name in (".venv-sdk", ".venv", "venv"))
        candidates = [sys.executable, *(str(path) for path in environments if path.exists()), "python3"]
    for candidate in candidates:
        path = shutil.which(candidate)
        if path is not None and _has_package(path, SDK):
            return os.path.abspath(path)  # noqa: PTH100 - resolving links would leave the virtual environment
    raise CommandError(
        f"{named} has no package azure-iot-device" if named else "found no Python with the package azure-iot-device",
        "the device needs it: pip install azure-iot-device (in any environment, named with --python)",
    )


def find_device_program(name: str = DEVICE) -> Path:
    """A program of the example device: beside the package where Muster is installed, in ``examples/`` of a checkout."""
    package = Path(__file__).parents[1]
    program = _PROGRAMS / name
    for file in (package / program, package.parents[1] / program):
        if file.is_file():
            return file
    raise CommandError(f"{program} is missing from this installation", "install Muster again")


_OK = 200
_PROGRAMS = Path("examples", "tutorial_device")


def _has_package(python: str, name: str) -> bool:
    script = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    try:
        return subprocess.run([python, "-c", script], capture_output=True, check=False, timeout=30).returncode == 0  # noqa: S603 - the Python that the user named
    except (OSError, subprocess.TimeoutExpired):
        return False


def _environment(connection_string: str | None, status: Mapping[str, Any]) -> dict[str, str]:
    """For the commands of the story: the same server, and no output held back."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # noqa: TID251 - passed on
    if connection_string is not None:
        environment["MUSTER_CONNECTION_STRING"] = connection_string
    elif status:
        environment.pop("MUSTER_CONNECTION_STRING", None)
        environment["MUSTER_DATA_DIR"] = str(status["dataDirectory"])
    return environment


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CommandError(f"the tutorial did not work: {otherwise}", _ADVICE)
