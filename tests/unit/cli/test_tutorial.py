import http.server
import shlex
import socket
import sys
import threading
from dataclasses import replace

import pytest

from muster.cli.demo import free_address
from muster.cli.failure import CommandError
from muster.cli.tutorial import (
    Settings,
    device_variables,
    find_device_program,
    find_device_python,
    openssl_arguments,
    read_page,
)

SETTINGS = Settings(
    host="localhost",
    id_scope="0ne00DE5EED",
    hub="localhost",
    portal="http://localhost:8080/",
    portal_is_open=True,
    trust_file="/d/trust.pem",
    registration_id="raspberrypi-b",
    certificate="certs/raspberrypi2.pem",
    key="certs/raspberrypi2.key",
    python="python",
    back_end=True,
    openssl=True,
    fast=False,
)


def test_the_command_is_literally_that_of_the_tutorial():
    literal = (
        "openssl req -outform PEM -x509 -sha256 -newkey rsa:4096 -keyout raspberrypi2.key -out raspberrypi2.pem"
        ' -days 365 -extensions usr_cert -addext extendedKeyUsage=clientAuth -subj "/CN=raspberrypi-b"'
    )
    assert openssl_arguments(SETTINGS) == [*shlex.split(literal), "-passout", "pass:1234"]


def test_a_fast_one_differs_in_the_key_alone():
    fast = openssl_arguments(replace(SETTINGS, fast=True))
    at = fast.index("ec")
    assert fast[at : at + 3] == ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    assert [*fast[:at], "rsa:4096", *fast[at + 3 :]] == openssl_arguments(SETTINGS)


def test_the_device_gets_the_variables_of_the_tutorial():
    assert device_variables(SETTINGS) == {
        "DPS_HOST": "localhost",
        "DPS_SCOPEID": "0ne00DE5EED",
        "DPS_REGISTRATIONID": "raspberrypi-b",
        "X509_CERT_FILE": "certs/raspberrypi2.pem",
        "X509_KEY_FILE": "certs/raspberrypi2.key",
        "X509_PASS_PHRASE": "1234",
        "SSL_CERT_FILE": "/d/trust.pem",
    }


def test_without_a_private_ca_there_is_nothing_to_trust():
    assert "SSL_CERT_FILE" not in device_variables(replace(SETTINGS, trust_file=""))


@pytest.mark.parametrize("name", ["device.py", "both_ways.py", "back_end.py"])
def test_the_programs_are_there_and_know_nothing_of_muster(name):
    program = find_device_program(name).read_text()
    assert "import muster" not in program
    assert "from muster" not in program


def test_a_python_without_the_sdk_is_told_how_to_get_it(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    for named in (str(fake), str(tmp_path / "none")):
        with pytest.raises(CommandError, match="has no package azure-iot-device") as caught:
            find_device_python(named)
        assert "pip install azure-iot-device" in caught.value.advice


def test_a_python_in_an_environment_keeps_its_name(tmp_path, monkeypatch):
    real = tmp_path / "real"
    real.write_text("#!/bin/sh\nexit 0\n")
    real.chmod(0o755)
    (tmp_path / "link").symlink_to(real)
    assert find_device_python(str(tmp_path / "link")) == str(tmp_path / "link")


def test_an_environment_beside_the_project_is_found(tmp_path, monkeypatch):
    python = tmp_path / ".venv-sdk" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", "/none/python")
    assert find_device_python(None) == str(python)


def test_an_address_in_use_is_not_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("muster.cli.demo.MQTT_PORT", taken.getsockname()[1])
        monkeypatch.setattr("muster.cli.demo.PORTAL_PORT", taken.getsockname()[1])
        assert free_address() == "127.0.0.2"


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/enrollments" else 404)
        self.end_headers()
        self.wfile.write("raspberrypi-b ✓".encode())

    def log_message(self, *arguments):
        pass


def test_a_page_of_the_portal_is_read():
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as portal:
        address = f"http://127.0.0.1:{portal.server_port}"
        thread = threading.Thread(target=lambda: [portal.handle_request() for _ in range(2)])
        thread.start()
        assert read_page(f"{address}/enrollments") == "raspberrypi-b ✓"
        with pytest.raises(CommandError, match="the portal answers 404"):
            read_page(f"{address}/other")
        thread.join()


def test_a_portal_that_does_not_answer_is_named():
    with pytest.raises(CommandError, match=r"the portal does not answer on http://127\.0\.0\.1:1/"):
        read_page("http://127.0.0.1:1/")
