"""TPMs: ``Swtpm``, a real implementation driven with Debian's tpm2-tools as DPS's clients drive theirs, and
``SoftwareTpm``, what those steps compute, written a second time on cryptography's own algorithms.
"""

import contextlib
import functools
import hashlib
import hmac
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

INSTALL = "apt-get install swtpm tpm2-tools"

ENDORSEMENT_KEY = "0x81010001"
STORAGE_ROOT_KEY = "0x81000001"
IDENTITY_KEY = "0x81000100"
"""Where every client of DPS keeps its keys (dps.md 4.6)."""

POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
"""PolicySecret(endorsement) with SHA-256: the policy of the endorsement key in every client's template."""

ENDORSEMENT_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|adminwithpolicy|restricted|decrypt"
STORAGE_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt"

FIELDS = ("credential", "credential seed", "duplicate", "duplicate seed", "public", "data")
"""The structures of an activation blob, in their order."""

START_SECONDS = 60.0

_CREDENTIAL_FILE = bytes.fromhex("badcc0de 00000001")
"""What tpm2_activatecredential wants before the two structures: a magic number and a version."""


def sized(content: bytes) -> bytes:
    """A TPM2B."""
    return len(content).to_bytes(2, "big") + content


def split_blob(blob: bytes) -> dict[str, bytes]:
    """The structures of an activation blob, each with its size; there are exactly six."""
    fields = []
    for _ in FIELDS:
        end = 2 + int.from_bytes(blob[:2], "big")
        assert len(blob) >= end >= 2, "the blob ends in the middle of a structure"
        fields.append(blob[:end])
        blob = blob[end:]
    assert blob == b"", "bytes follow the sixth structure"
    return dict(zip(FIELDS, fields, strict=True))


class TpmToolError(Exception):
    """A tool of tpm2-tools failed; the text is what it printed."""


class Swtpm:
    """One TPM with its state in a directory of its own, on unix sockets in it, and keys as a client makes them."""

    def __init__(self) -> None:
        missing = [tool for tool in ("swtpm", "tpm2_activatecredential") if shutil.which(tool) is None]
        assert not missing, f"{' and '.join(missing)} are missing: {INSTALL}"
        self.directory = Path(tempfile.mkdtemp(prefix="muster-tpm-"))
        self.socket = self.directory / "socket"
        server, control = (f"type=unixio,path={path}" for path in (self.socket, f"{self.socket}.ctrl"))
        options = ("--tpm2", "--tpmstate", f"dir={self.directory}", "--flags", "not-need-init,startup-clear")
        places = ("--server", server, "--ctrl", control, "--log", f"file={self.directory / 'log'}")
        self._process = subprocess.Popen(["swtpm", "socket", *options, *places])
        try:
            self._wait()
            self.create_endorsement_key()
            self.create_storage_root_key()
        except BaseException:
            self.stop()
            raise

    @property
    def endorsement_key(self) -> bytes:
        """The marshalled TPM2B_PUBLIC, as a client sends it."""
        return self.read_public(ENDORSEMENT_KEY)

    @property
    def storage_root_key(self) -> bytes:
        return self.read_public(STORAGE_ROOT_KEY)

    def create_endorsement_key(self, algorithm: str = "rsa2048:null:aes128cfb") -> None:
        """At its place, with the template that C, Node, Java and .NET share."""
        policy = self._write("policy", POLICY)
        self._create(ENDORSEMENT_KEY, "e", algorithm, "sha256", ENDORSEMENT_ATTRIBUTES, "-L", policy)

    def create_storage_root_key(
        self, algorithm: str = "rsa2048:null:aes128cfb", hash_algorithm: str = "sha256"
    ) -> None:
        self._create(STORAGE_ROOT_KEY, "o", algorithm, hash_algorithm, STORAGE_ATTRIBUTES)

    def activate(self, blob: bytes) -> None:
        """What a client does with an ``authenticationKey``; then the key of the blob is the one that signs.

        Raises TpmToolError at the step that fails.
        """
        fields = split_blob(blob)
        wrapping_key = self.activate_credential(fields["credential"] + fields["credential seed"])
        self.import_key(wrapping_key, fields["duplicate"], fields["duplicate seed"], fields["public"])

    def activate_credential(self, credential: bytes) -> bytes:
        """TPM2_ActivateCredential, with the policy session that the endorsement key asks for: the wrapping key."""
        blob = self._write("credential", _CREDENTIAL_FILE + credential)
        session = self._path("session")
        self.run("startauthsession", "--policy-session", "-S", session)
        try:
            self.run("policysecret", "-S", session, "-c", "e")
            keys = ("-c", STORAGE_ROOT_KEY, "-C", ENDORSEMENT_KEY, "-P", f"session:{session}")
            self.run("activatecredential", *keys, "-i", blob, "-o", self._path("secret"))
        finally:
            self.run("flushcontext", session)
        return Path(self._path("secret")).read_bytes()

    def import_key(self, wrapping_key: bytes, duplicate: bytes, seed: bytes, public: bytes) -> None:
        """TPM2_Import under the storage root key (with a key, the tool says AES-128-CFB), TPM2_Load and
        TPM2_EvictControl, in place of a key that was there.
        """
        public_file = self._write("public", public)
        key = ("-k", self._write("wrapping-key", wrapping_key), "-s", self._write("seed", seed))
        duplicated = self._write("duplicate", duplicate)
        private = self._path("private")
        parent = ("-C", STORAGE_ROOT_KEY)
        self.run("import", *parent, *key, "-i", duplicated, "-u", public_file, "-r", private)
        self.run("load", *parent, "-u", public_file, "-r", private, "-c", self._path("loaded"))
        self._persist("loaded", IDENTITY_KEY)

    def sign(self, text: bytes) -> bytes:
        """TPM2_HMAC with the key that was activated last."""
        self.run("hmac", "-c", IDENTITY_KEY, "-g", "sha256", "-o", self._path("code"), self._write("text", text))
        return Path(self._path("code")).read_bytes()

    def decrypt_data(self, wrapping_key: bytes, data: bytes) -> bytes:
        """The buffer of the last structure, decrypted by the TPM: TPM2_EncryptDecrypt2, which the Java client uses."""
        loaded, clear = self._path("loaded"), self._path("clear")
        self.run("loadexternal", "-G", "aes", "-r", self._write("wrapping-key", wrapping_key), "-c", loaded)
        try:
            self.run("encryptdecrypt", "-d", "-c", loaded, "-o", clear, self._write("data", data))
        finally:
            self.run("flushcontext", "-t")
        return Path(clear).read_bytes()

    def read_public(self, handle: str) -> bytes:
        self.run("readpublic", "-c", handle, "-f", "tss", "-o", self._path("public"))
        return Path(self._path("public")).read_bytes()

    def read_name(self, handle: str) -> bytes:
        self.run("readpublic", "-c", handle, "-n", self._path("name"))
        return Path(self._path("name")).read_bytes()

    def run(self, tool: str, *arguments: str) -> None:
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TPM2TOOLS_TCTI": f"swtpm:path={self.socket}"}
        command = [f"tpm2_{tool}", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise TpmToolError(f"tpm2_{tool}: {done.stderr.strip()}")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.directory)

    def _create(self, handle: str, hierarchy: str, algorithm: str, hash_algorithm: str, *rest: str) -> None:
        attributes, *policy = rest
        context = self._path("primary")
        key = ("-G", algorithm, "-g", hash_algorithm, "-a", attributes)
        self.run("createprimary", "-C", hierarchy, *key, *policy, "-c", context)
        self._persist("primary", handle)

    def _persist(self, context: str, handle: str) -> None:
        with contextlib.suppress(TpmToolError):
            self.run("evictcontrol", "-C", "o", "-c", handle)
        self.run("evictcontrol", "-C", "o", "-c", self._path(context), handle)
        # There is no resource manager: what was loaded stays in one of three slots.
        self.run("flushcontext", "-t")

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.run("getrandom", "1", "-o", self._path("random"))
            except TpmToolError:
                assert self._process.poll() is None, (self.directory / "log").read_text()
                assert time.monotonic() < deadline, "swtpm does not start"
                time.sleep(0.01)
            else:
                return

    def _path(self, name: str) -> str:
        return str(self.directory / name)

    def _write(self, name: str, content: bytes) -> str:
        path = self.directory / name
        path.write_bytes(content)
        return str(path)


@contextlib.contextmanager
def running_swtpm() -> Iterator[Swtpm]:
    """A TPM for the time of a block; how to install what it needs, when that is missing."""
    tpm = Swtpm()
    try:
        yield tpm
    finally:
        tpm.stop()


_HASHES: dict[str, tuple[int, hashes.HashAlgorithm]] = {
    "sha256": (0x000B, hashes.SHA256()),
    "sha384": (0x000C, hashes.SHA384()),
    "sha512": (0x000D, hashes.SHA512()),
}


@functools.cache
def private_key(number: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same key for the same number, for as long as the process lasts."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(frozen=True)
class SoftwareKey:
    """A storage key whose private half we have."""

    private: rsa.RSAPrivateKey
    hash_name: str = "sha256"
    symmetric_bits: int = 128
    attributes: int = 0x00030472
    policy: bytes = b""

    @property
    def public(self) -> bytes:
        """The marshalled TPM2B_PUBLIC."""
        size = self.private.key_size
        modulus = self.private.public_key().public_numbers().n.to_bytes(size // 8, "big")
        numbers = (0x0006, self.symmetric_bits, 0x0043, 0x0010, size)
        return sized(
            b"\0\1"
            + _HASHES[self.hash_name][0].to_bytes(2, "big")
            + self.attributes.to_bytes(4, "big")
            + sized(self.policy)
            + b"".join(number.to_bytes(2, "big") for number in numbers)
            + bytes(4)
            + sized(modulus)
        )

    @property
    def name(self) -> bytes:
        return _HASHES[self.hash_name][0].to_bytes(2, "big") + hashlib.new(self.hash_name, self.public[2:]).digest()

    def unprotect(self, label: bytes, name: bytes, protected: bytes, encrypted_seed: bytes) -> bytes:
        """What was protected with this key for the object called ``name``; both structures come with their size.

        Raises ValueError when it was protected with another key or for another object.
        """
        algorithm = _HASHES[self.hash_name][1]
        oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, label)
        seed = self.private.decrypt(encrypted_seed[2:], oaep)
        end = 4 + algorithm.digest_size
        code, encrypted = protected[4:end], protected[end:]
        integrity = self._derive(seed, b"INTEGRITY", b"", algorithm.digest_size)
        if code != hmac.digest(integrity, encrypted + name, self.hash_name):
            raise ValueError("integrity")
        return decrypt_cfb(self._derive(seed, b"STORAGE", name, self.symmetric_bits // 8), encrypted)

    def _derive(self, seed: bytes, label: bytes, context: bytes, length: int) -> bytes:
        algorithm = _HASHES[self.hash_name][1]
        location = CounterLocation.BeforeFixed
        return KBKDFHMAC(algorithm, Mode.CounterMode, length, 4, 4, location, label, context, None).derive(seed)


def decrypt_cfb(key: bytes, content: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
    return decryptor.update(content) + decryptor.finalize()


@dataclass(frozen=True)
class SoftwareTpm:
    """Two keys, and what a TPM computes with them; for tests that have no time for a process."""

    endorsement: SoftwareKey
    storage_root: SoftwareKey

    @property
    def endorsement_key(self) -> bytes:
        return self.endorsement.public

    @property
    def storage_root_key(self) -> bytes:
        return self.storage_root.public

    def activate(self, blob: bytes) -> tuple[bytes, bytes]:
        """The HMAC key and the data in a blob. Raises ValueError when it is for another TPM."""
        fields = split_blob(blob)
        wrapping_key = _unsized(
            self.endorsement.unprotect(
                b"IDENTITY\0", self.storage_root.name, fields["credential"], fields["credential seed"]
            )
        )
        public = fields["public"]
        name = public[4:6] + hashlib.sha256(public[2:]).digest()
        inner = decrypt_cfb(
            wrapping_key,
            self.storage_root.unprotect(b"DUPLICATE\0", name, fields["duplicate"], fields["duplicate seed"]),
        )
        digest, sensitive = inner[2:34], inner[34:]
        obfuscation, key = sensitive[8:40], _unsized(sensitive[40:])
        assert sensitive == sized(b"\0\x08" + sized(b"") + sized(obfuscation) + sized(key))
        assert digest == hashlib.sha256(sensitive + name).digest()
        assert public[-32:] == hashlib.sha256(obfuscation + key).digest()
        return key, decrypt_cfb(wrapping_key, _unsized(fields["data"]))


def software_tpm(number: int = 0) -> SoftwareTpm:
    """The same TPM for the same number; its keys are as clients make them."""
    endorsement = SoftwareKey(private_key(2 * number), attributes=0x000300B2, policy=POLICY)
    return SoftwareTpm(endorsement, SoftwareKey(private_key(2 * number + 1)))


def _unsized(content: bytes) -> bytes:
    assert int.from_bytes(content[:2], "big") == len(content) - 2
    return content[2:]
