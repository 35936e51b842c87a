"""Embedded stores for tests: with and without password and TLS, in both topologies.

Plain helpers. A test (or a fixture of its own) opens what it needs:

    async with embedded_store(tmp_path, tls=True) as store:
        async with connected(store.uri) as client: ...
        await store.kill()      # SIGKILL, gone when it returns
        await store.restart()   # after a kill, or cleanly

VARIANTS lists all combinations as keyword arguments, for `pytest.mark.parametrize`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from netatmo_ingestd.embedded import EmbeddedStore

VARIANTS: list[dict[str, bool]] = [
    {"standalone": standalone, "auth": auth, "tls": tls}
    for standalone, auth, tls in itertools.product((True, False), repeat=3)
]


def variant_name(variant: dict[str, bool]) -> str:
    """A readable test id, e.g. "standalone-scram-tls"."""
    topology = "standalone" if variant["standalone"] else "replica"
    return "-".join(
        [topology, "scram" if variant["auth"] else "open", *(["tls"] if variant["tls"] else [])]
    )


class RunningStore:
    """A store under test; `store` is the object the daemon would hold."""

    def __init__(self, store: EmbeddedStore) -> None:
        self.store = store

    @property
    def uri(self) -> str:
        return self.store.uri

    @property
    def pid(self) -> int:
        assert self.store.pid is not None
        return self.store.pid

    @property
    def memory_bytes(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    async def kill(self) -> None:
        """As a power supply or the kernel would end it: nothing is flushed."""
        await self.store.stop(signal.SIGKILL)

    async def stop(self) -> None:
        await self.store.stop()

    async def restart(self) -> str:
        """Cleanly if it runs; the URI stays."""
        return await self.store.restart()

    def freeze(self) -> None:
        """It accepts connections and never answers, until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def embedded_store(
    folder: Path,
    *,
    standalone: bool = True,
    auth: bool = True,
    tls: bool = False,
    test_commands: bool = True,
    **options: Any,
) -> AsyncIterator[RunningStore]:
    """A store in `folder`/store, gone afterwards; skips without the extra (in CI: fails).

    options  further keywords of EmbeddedStore
    """
    require_extra()
    store = EmbeddedStore(
        folder / "store",
        standalone=standalone,
        auth=auth,
        tls_pem=certificate(folder) if tls else None,
        enable_test_commands=test_commands,
        **options,
    )
    try:
        await store.start()
        yield RunningStore(store)
    finally:
        if store.pid:  # a frozen process would not see the end coming
            os.kill(store.pid, signal.SIGCONT)
        await store.stop()


@contextlib.asynccontextmanager
async def connected(uri: str, **options: Any) -> AsyncIterator[Any]:
    """A Motor client that gives up within seconds, so that a killed store ends no test by time."""
    limits = {"serverSelectionTimeoutMS": 3000, "connectTimeoutMS": 3000, "socketTimeoutMS": 20_000}
    client: Any = AsyncIOMotorClient(uri, **{**limits, **options})
    try:
        yield client
    finally:
        client.close()


def require_extra() -> None:
    """Skip the calling test where the extra is not installed; in CI it has to be."""
    if importlib.util.find_spec("secantus") is None and not os.environ.get("CI"):
        pytest.skip("the extra netatmo-ingestd[embedded] is not installed")


def certificate(folder: Path) -> Path:
    """A self-made certificate for 127.0.0.1 with its key, one PEM file; also its own CA."""
    from cryptography import x509  # noqa: PLC0415  most tests do not need it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    file = folder / "store.pem"
    if file.exists():
        return file
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store under test")])
    now = datetime.now(UTC)
    usage = {
        "digital_signature": True,
        "key_cert_sign": True,
        "crl_sign": True,
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "encipher_only": False,
        "decipher_only": False,
    }
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    file.chmod(0o600)
    return file


def port_of(uri: str) -> int:
    """The port in a URI of ours."""
    return int(uri.rpartition("@")[2].removeprefix("mongodb://").split("/")[0].split(":")[1])


async def until(condition: Callable[[], object], *, within: float = 20.0, what: str = "") -> None:
    """Wait until `condition()` is true; fail after `within` seconds."""
    limit = time.monotonic() + within
    while not condition():
        if time.monotonic() > limit:
            pytest.fail(f"not within {within} s: {what or condition}")
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """True while process `pid` exists and is not only waited for by its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
