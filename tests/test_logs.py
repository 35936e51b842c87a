"""Logs: events as lines, and no secret in any of them, whatever its disguise."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netatmo_ingestd import logs
from netatmo_ingestd.logs import Redactor

SECRET = 'canary/Ünïc=ode+&?% 9f"8\\e7'
PLAIN = "0123456789abcdef|canary"
_SECRETS = st.text(st.characters(codec="utf-8"), min_size=6, max_size=40)
_BYTES = st.binary(max_size=9)


def protecting(*secrets: str) -> Redactor:
    redactor = Redactor()
    redactor.protect("test", secrets)
    return redactor


def logged(work: Any, form: str = "json", *secrets: str) -> str:
    """What `work(logger)` prints, with `secrets` protected."""
    out = io.StringIO()
    logs.REDACTOR.protect("test", secrets or (SECRET, PLAIN))
    logs.setup("debug", form, out)
    work(logs.logger())
    return out.getvalue()


# --- the forms of a secret ----------------------------------------------------------------------


DISGUISES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "quote": quote,
    "quote_plus": quote_plus,
    "quote all": lambda text: quote(text, safe=""),
    "each byte, lower": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "each byte, upper": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "json": json.dumps,
    "json, not ascii": lambda text: json.dumps(text, ensure_ascii=False),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "urlsafe": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "basic auth": lambda text: base64.b64encode(f"me:{text}".encode()).decode(),
}


@pytest.mark.parametrize("secret", [SECRET, PLAIN])
@pytest.mark.parametrize("disguise", DISGUISES)
def test_no_disguise_hides_a_secret_from_the_redactor(disguise: str, secret: str) -> None:
    """Plain, percent-encoded, JSON-escaped or base64: nothing of it is left but some padding."""
    cleaned = protecting(secret).clean(f"before {DISGUISES[disguise](secret)} after")

    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")
    assert "***" in cleaned
    assert "canary" not in cleaned
    assert len(cleaned) < 28


@given(_SECRETS, _BYTES, _BYTES)
@example("abcdef", b"x", b"")
def test_a_secret_inside_a_longer_base64_text(secret: str, before: bytes, after: bytes) -> None:
    """At whatever place of a base64 text it stands, at most three characters of it are left."""
    raw = secret.encode()
    whole = base64.b64encode(before + raw + after).decode()

    cleaned = protecting(secret).clean(whole)

    first, last = len(before) * 8 / 6, (len(before) + len(raw)) * 8 / 6
    assert "***" in cleaned
    assert len(cleaned) <= len(whole) - (last - first) + 2 + 3


@given(_SECRETS, st.data())
def test_any_mixture_of_percent_encoding(secret: str, data: st.DataObject) -> None:
    """A secret is found whichever of its characters are percent-encoded, in either case."""
    if secret.isascii() and secret.isalnum():
        return
    parts = []
    for letter in secret:
        encoded = "".join(f"%{byte:02x}" for byte in letter.encode())
        parts.append(data.draw(st.sampled_from([letter, encoded, encoded.upper()])))

    assert protecting(secret).clean(f"?a={''.join(parts)}&b") == "?a=***&b"


@given(st.text(max_size=60))
def test_text_without_a_secret_is_left_alone(text: str) -> None:
    """What holds no secret comes out as it went in."""
    redactor = protecting("canary-secret-one", "canary+secret/two")

    assert redactor.clean(text) == text


def test_a_secret_that_begins_another_leaves_nothing_of_it() -> None:
    """The longer of two secrets is replaced first."""
    redactor = Redactor()
    redactor.protect("a", ["canary"])
    redactor.protect("b", ["canary-and-more"])

    assert redactor.clean("x canary-and-more y canary z") == "x *** y *** z"


def test_a_new_generation_replaces_the_old_one() -> None:
    """After a rotation the new token is hidden; the old one is forgotten, other names are not."""
    redactor = Redactor()
    redactor.protect("token:home", ["canary-old"])
    redactor.protect("token:garden", ["canary-garden"])

    redactor.protect("token:home", ["canary-new"])

    assert redactor.clean("canary-new canary-garden") == "*** ***"
    assert redactor.clean("canary-old") == "canary-old"


def test_short_values_are_no_secrets() -> None:
    """An empty or tiny value garbles no log line."""
    assert protecting("", "a", "12345").clean("a 12345 b") == "a 12345 b"


# --- lines --------------------------------------------------------------------------------------


def test_a_line_is_one_json_object() -> None:
    """An event is one JSON object with its name, level, UTC time and fields."""
    text = logged(lambda log: log.warning("poll.failed", account="home", failures=3, error="a\nb"))

    line = json.loads(text)
    assert text.count("\n") == 1
    assert line["event"] == "poll.failed"
    assert (line["level"], line["account"], line["failures"]) == ("warning", "home", 3)
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_in_fields_at_any_depth(form: str) -> None:
    """Fields, lists, mappings, their keys, exceptions and bytes are redacted in both formats."""

    class Odd:
        def __str__(self) -> str:
            return f"odd {SECRET}"

    def work(log: Any) -> None:
        log.error(
            f"event {PLAIN}",
            plain=SECRET,
            nested={"a": [{"b": (f"x{PLAIN}y", SECRET)}], PLAIN: 1},
            error=ValueError(SECRET),
            raw=PLAIN.encode(),
            odd=Odd(),
            many={SECRET},
        )

    text = logged(work, form)

    assert "canary" not in text
    assert "***" in text


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("how", ["true", "exception", "tuple", "log.exception"])
def test_a_traceback_has_no_secret_and_no_local_variable(form: str, how: str) -> None:
    """A logged exception keeps its frames and cause, without locals and without secrets."""

    def fail() -> None:
        local = "a local value"
        try:
            dict.fromkeys(local).pop(PLAIN)
        except KeyError as error:
            raise ValueError(f"refused: {SECRET}") from error

    def work(log: Any) -> None:
        try:
            fail()
        except ValueError as error:
            given = {"true": True, "exception": error, "tuple": sys.exc_info()}
            if how == "log.exception":
                log.exception("poll.failed")
            else:
                log.error("poll.failed", exc_info=given[how])  # noqa: TRY400

    text = logged(work, form)

    assert "ValueError" in text
    assert "KeyError" in text
    assert "fail" in text
    assert "a local value" not in text
    assert "canary" not in text


def test_lines_of_libraries_have_our_shape() -> None:
    """A library's warning is one redacted JSON line; its INFO lines do not appear."""

    def work(_log: Any) -> None:
        foreign = logging.getLogger("httpx")
        foreign.info("GET https://api.example/?access_token=%s", PLAIN)
        foreign.warning("odd answer to %s", f"?token={quote(SECRET)}")
        try:
            {"a": 1}.pop(PLAIN)
        except KeyError:
            logging.getLogger("pymongo").exception("failed")

    lines = [json.loads(line) for line in logged(work).splitlines()]

    assert [line["logger"] for line in lines] == ["httpx", "pymongo"]
    assert all(line["event"] == "library" for line in lines)
    assert "canary" not in json.dumps(lines)
    assert "KeyError: '***'" in lines[1]["message"]


def test_levels_are_kept() -> None:
    """Below the configured level nothing is printed."""
    out = io.StringIO()
    logs.setup("warning", "json", out)

    logs.logger().info("poll.recovered")
    logs.logger().warning("poll.failed")

    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["poll.failed"]


def test_auto_is_json_unless_on_a_terminal() -> None:
    """`auto` prints JSON into a pipe and readable text on a terminal."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    pipe, terminal = io.StringIO(), Terminal()
    for out in (pipe, terminal):
        logs.setup("info", "auto", out)
        logs.logger().info("daemon.started", account="home")

    assert json.loads(pipe.getvalue())["event"] == "daemon.started"
    assert not terminal.getvalue().startswith("{")
    assert "daemon.started" in terminal.getvalue()


def test_the_last_words_of_a_defect_are_redacted() -> None:
    """A traceback that ends the process shows where, and no secret."""
    code = (
        "import sys\n"
        "from netatmo_ingestd import logs\n"
        "sys.excepthook = logs.last_words\n"
        f"logs.REDACTOR.protect('x', [{PLAIN!r}])\n"
        f"raise RuntimeError({PLAIN!r})\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "RuntimeError: ***" in done.stderr
    assert "canary" not in done.stderr


def test_the_events_table_names_each_event_once_with_a_meaning() -> None:
    """Each documented event has a dotted name and a meaning in plain words."""
    for name, text in logs.EVENTS.items():
        assert name.count(".") == 1
        assert text
        assert not text.endswith(".")
