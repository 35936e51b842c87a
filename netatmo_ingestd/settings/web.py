"""The settings of the daemon's own web server, and of the webhook that it answers."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator

from netatmo_ingestd.providers import WEBHOOK_PORTS, is_loopback
from netatmo_ingestd.settings.section import Section


class WebSettings(Section):
    """Where the daemon's own web server listens, "host:port"; "" is nowhere."""

    listen: str = ""

    @property
    def address(self) -> tuple[str, int]:
        """(host, port); only when `listen` is set."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        match = re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", value)
        if value and (match is None or int(match[2]) > 65535):
            raise ValueError('is no address like "127.0.0.1:8736" or "[::1]:8736"')
        return value


class WebhookSettings(Section):
    """Whether Netatmo calls us: the public address it calls, and the secret part of its path."""

    url: str = ""
    path: SecretStr = SecretStr("")

    @field_validator("url")
    @classmethod
    def _public_address(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ValueError("is no plain address like https://home.example.org")
        simulated = parts.scheme == "http" and is_loopback(parts.hostname)
        if parts.scheme != "https" and not simulated:
            raise ValueError("must be https: it carries a secret path")
        if not simulated and (parts.port or 443) not in WEBHOOK_PORTS:
            ports = ", ".join(map(str, WEBHOOK_PORTS))
            raise ValueError(f"has port {parts.port}; Netatmo calls only {ports}")
        return value.rstrip("/")

    @field_validator("path")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and not re.fullmatch(r"[A-Za-z0-9_-]{16,128}", text):
            raise ValueError("needs 16 to 128 letters, digits, dashes or underscores")
        return value
