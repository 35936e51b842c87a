"""How a refusal is read, and what a provider says of itself."""

from __future__ import annotations

import dataclasses

import pytest

from netatmo_ingestd.providers import (
    NETATMO,
    OAUTH_CURES,
    Reaction,
    is_loopback,
    names_application,
    read_refusal,
)

# netatmo-api 5.1 and 5.2: status, code, message of the envelope, and what they ask for.
TABLE: tuple[tuple[int, int | str | None, str, Reaction], ...] = (
    (200, 0, "upstream failure", Reaction.RETRY),
    (401, 1, "Access token is missing", Reaction.RENEW),
    (403, 1, "Access token is missing", Reaction.RENEW),
    (403, 2, "Invalid access token", Reaction.RENEW),
    (401, 3, "Access token expired", Reaction.RENEW),
    (403, 3, "Access token expired", Reaction.RENEW),
    (400, 4, "inconsistency error", Reaction.BUG),
    (406, 5, "application deactivated", Reaction.BUG),
    (406, 7, "Nothing to drop", Reaction.BUG),
    (404, 9, "Device not found", Reaction.TARGET),
    (400, 10, "Missing home_id", Reaction.BUG),
    (400, 10, "Missing parameters", Reaction.BUG),
    (500, 11, "Internal error", Reaction.RETRY),
    (429, 11, "Failed to enter concurrency limited section", Reaction.CROWDED),
    (403, 13, "Application does not have the good scope rights", Reaction.SCOPE),
    (403, 13, "Operation is forbidden", Reaction.SCOPE),
    (403, 15, "no places in device", Reaction.TARGET),
    (400, 21, "Invalid id", Reaction.TARGET),
    (400, 21, "Invalid home_id", Reaction.TARGET),
    (400, 21, "Invalid device_id, 70:ee:50:01:02:03", Reaction.TARGET),
    (400, 21, "device id is invalid", Reaction.TARGET),
    (400, 21, "Invalid room_id", Reaction.TARGET),
    (400, 21, "Invalid module_id", Reaction.TARGET),
    (400, 21, "unknown measure type", Reaction.BUG),
    (400, 21, "Invalid url parameter", Reaction.BUG),
    (400, 21, "schedule 3 is not therm schedule", Reaction.BUG),
    (400, 21, "mode not authorized", Reaction.BUG),
    (400, 22, "application not found", Reaction.BUG),
    (404, 22, "application not found", Reaction.BUG),
    (403, 23, "user not found", Reaction.RENEW),
    (400, 24, "invalid timezone", Reaction.BUG),
    (400, 25, "invalid date", Reaction.BUG),
    (403, 26, "User usage reached", Reaction.PAUSE),
    (403, 26, "Application usage reached", Reaction.PAUSE),
    (429, 26, "Maximum api usage reached", Reaction.PAUSE),
    (403, 27, "temporarily banned", Reaction.PAUSE),
    (429, 28, "rate limited", Reaction.PAUSE),
    (429, 29, "temporarily restricted", Reaction.PAUSE),
    (429, None, "", Reaction.PAUSE),
    (429, "busy", "", Reaction.PAUSE),
    (403, 30, "invalid refresh token", Reaction.RELOGIN),
    (404, 31, "method not found", Reaction.BUG),
    (400, 40, "JSON bad encoding", Reaction.BUG),
    (404, 41, "device unreachable", Reaction.TARGET),
    (409, "WH009", "webhook limit reached", Reaction.BUG),
    (401, None, "", Reaction.RENEW),
    (401, 77, "a code that nobody knows", Reaction.RENEW),
    (401, "invalid_token", "expired", Reaction.RENEW),
    (403, "invalid_token", "expired", Reaction.RENEW),
    (403, "insufficient_scope", "", Reaction.SCOPE),
    (403, "access_denied", "", Reaction.SCOPE),
    (400, "invalid_request", "", Reaction.BUG),
    (500, None, "", Reaction.RETRY),
    (502, None, "", Reaction.RETRY),
    (503, None, "", Reaction.RETRY),
    (504, None, "", Reaction.RETRY),
    (403, None, "", Reaction.RETRY),
    (404, None, "", Reaction.RETRY),
    (400, None, "", Reaction.RETRY),
    (302, None, "", Reaction.RETRY),
    (418, 77, "a status that nobody knows", Reaction.RETRY),
)
MEANINGS_OF_403 = {
    Reaction.RENEW,
    Reaction.RELOGIN,
    Reaction.SCOPE,
    Reaction.PAUSE,
    Reaction.TARGET,
    Reaction.RETRY,
}


@pytest.mark.parametrize(("status", "code", "message", "reaction"), TABLE)
def test_refusal(status: int, code: int | str | None, message: str, reaction: Reaction) -> None:
    """Each row of the cloud's table of errors asks for the reaction of the decision table."""
    assert read_refusal(status, code, message) is reaction


def test_status_alone_decides_nothing() -> None:
    """A 403 has six meanings and a 429 two, told apart by the code."""
    meanings = {
        status: {reaction for each, *_, reaction in TABLE if each == status}
        for status in (403, 429)
    }

    assert meanings == {403: MEANINGS_OF_403, 429: {Reaction.CROWDED, Reaction.PAUSE}}


def test_no_unknown_refusal_costs_the_login_or_a_pause() -> None:
    """A code that nobody knows never asks for a new login, and only a 429 for a pause."""
    unknown: tuple[int | str, ...] = (-1, 42, 99, 10**30, "", "odd", "26")
    reactions = {
        (status, read_refusal(status, code, "Invalid access token, usage reached"))
        for status in range(100, 600)
        if status not in (401, 429)
        for code in unknown
    }

    assert {reaction for _, reaction in reactions} == {Reaction.BUG, Reaction.SCOPE, Reaction.RETRY}
    assert {status for status, reaction in reactions if reaction is Reaction.SCOPE} == {403}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Application usage reached", True),
        ("User usage reached", False),
        ("Maximum api usage reached", False),
        ("", False),
    ],
)
def test_whose_quota(message: str, told: bool) -> None:
    """Only a message that names the application stops all of its accounts."""
    assert names_application(message) is told


@pytest.mark.parametrize(
    "code",
    [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "redirect_uri_mismatch",
        "access_denied",
        "unsupported_response_type",
        "invalid_scope",
        "too_many_connections",
    ],
)
def test_oauth_errors_have_a_cure(code: str) -> None:
    """Each error of the token endpoint (1.4) tells what to do, and only an overload passes."""
    cure = OAUTH_CURES[code]

    assert cure.cure
    assert "\n" not in cure.cure.format(account="home", portal="x")
    assert cure.final is (code != "too_many_connections")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("127.0.0.1.example.com", False),
        ("127.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("api.netatmo.com", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine(host: str, here: bool) -> None:
    """A name that merely looks like a loopback address is another machine."""
    assert is_loopback(host) is here


def test_cloud_is_asked_over_https_at_its_own_hosts() -> None:
    """The real cloud's addresses are https, and its quotas are those of its documentation."""
    assert NETATMO.token_url == "https://api.netatmo.com/oauth2/token"
    assert NETATMO.authorize_url == "https://api.netatmo.com/oauth2/authorize"
    assert NETATMO.hosts == {"api.netatmo.com"}
    assert not NETATMO.loopback
    assert NETATMO.app_per_hour == 2000


def test_one_outside_host_makes_a_cloud_real() -> None:
    """A provider is a simulator only if both of its hosts are this machine."""
    half = dataclasses.replace(NETATMO, api_url="http://127.0.0.1:8000")
    whole = dataclasses.replace(half, auth_url="http://localhost:8000")

    assert not half.loopback
    assert whole.loopback
