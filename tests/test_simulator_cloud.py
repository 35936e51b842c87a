"""The simulated cloud over its ASGI interface: logins, quotas, faults, control routes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from netatmo_ingestd.errors import ConfigError
from netatmo_ingestd.simulator.faults import HOUSEHOLD, KINDS, REQUEST, WORLD
from netatmo_ingestd.simulator.server import Plan, build
from tests.clocks import START
from tests.labs import Lab, error

BACK = "http://localhost:8475/callback"


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(Plan(seed=7, stations=2, days=30, origin=START))
    async with lab.http:
        yield lab


@pytest.fixture
async def town() -> AsyncIterator[Lab]:
    """Three accounts with a station each, two apps, and neighbours who are invited."""
    plan = Plan(seed=7, stations=3, days=3, origin=START, accounts=3, apps=2, shared=True)
    lab = Lab(plan)
    async with lab.http:
        yield lab


# --- tokens ------------------------------------------------------------------------------------


async def test_a_token_answer_has_the_shape_of_the_cloud(lab: Lab) -> None:
    """Both expiry keys, scope as a list, no token_type, never to be stored by a cache."""
    answer = await lab.token(refresh_token=lab.refresh_token())

    body = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (body["expires_in"], body["expire_in"], body["scope"]) == (
        10_800,
        10_800,
        ["read_station"],
    )
    assert set(body) == {"access_token", "refresh_token", "scope", "expires_in", "expire_in"}
    assert body["access_token"].split("|")[0] == lab.accounts[0].user_id


async def test_strict_rotation_kills_the_former_pair(lab: Lab) -> None:
    """After a refresh the old refresh token gives invalid_grant and the old access token code 2."""
    first = (await lab.token(refresh_token=lab.refresh_token())).json()
    second = (await lab.token(refresh_token=first["refresh_token"])).json()

    reused = await lab.token(refresh_token=first["refresh_token"])
    lab.access = first["access_token"]
    refused = await lab.get("getstationsdata")
    lab.access = second["access_token"]
    welcome = await lab.get("getstationsdata")

    assert (reused.status_code, reused.json()) == (400, {"error": "invalid_grant"})
    assert error(refused) == (403, 2)
    assert welcome.status_code == 200
    assert (await lab.stats())["token"]["reused"] == 1


async def test_without_rotation_the_refresh_token_stays(lab: Lab) -> None:
    """In mode never the same refresh token comes back and goes on working."""
    await lab.http.post("/simulator/rotation", json={"mode": "never"})

    answers = [await lab.token(refresh_token=lab.refresh_token()) for _ in range(3)]

    assert {a.json()["refresh_token"] for a in answers} == {lab.refresh_token()}
    assert len({a.json()["access_token"] for a in answers}) == 3


async def test_grace_accepts_the_former_token_for_a_while(lab: Lab) -> None:
    """In mode grace:60 a lost answer can be asked for again for a minute."""
    await lab.http.post("/simulator/rotation", json={"mode": "grace:60"})
    lost = await lab.token(refresh_token=lab.refresh_token())

    lab.clock.advance(59)
    again = await lab.token(refresh_token=lab.refresh_token())
    lab.clock.advance(61)
    late = await lab.token(refresh_token=lab.refresh_token())

    assert lost.status_code == again.status_code == 200
    assert late.json() == {"error": "invalid_grant"}


async def test_access_tokens_expire_after_three_hours(lab: Lab) -> None:
    """A token of 10,799 s works, one of 10,800 s is refused with code 3."""
    await lab.login()

    lab.clock.advance(10_799)
    before = await lab.get("getstationsdata")
    lab.clock.advance(1)
    after = await lab.get("getstationsdata")

    assert before.status_code == 200
    assert error(after) == (403, 3)


async def test_bearer_tokens_are_told_apart(lab: Lab) -> None:
    """No token is code 1, an unknown one code 2."""
    nothing = await lab.http.get("/api/getstationsdata")
    lab.access = "nonsense"
    unknown = await lab.get("getstationsdata")

    assert error(nothing) == (403, 1)
    assert error(unknown) == (403, 2)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"refresh_token": "x|y"}, "invalid_grant"),
        ({"refresh_token": ""}, "invalid_request"),
        ({"refresh_token": "x", "client_secret": "wrong"}, "invalid_client"),
        ({"grant_type": "password", "username": "a", "password": "b"}, "unauthorized_client"),
        ({"grant_type": "magic"}, "unsupported_grant_type"),
    ],
)
async def test_token_requests_are_refused_as_oauth_errors(
    lab: Lab, form: dict[str, Any], code: str
) -> None:
    """Every refusal is 400 with a bare OAuth error."""
    answer = await lab.token(**form)

    assert (answer.status_code, answer.json()["error"]) == (400, code)


async def test_a_token_of_another_app_is_no_grant(town: Lab) -> None:
    """A refresh token belongs to one client id."""
    answer = await town.token(number=1, refresh_token=town.refresh_token(0))

    assert answer.json() == {"error": "invalid_grant"}


async def test_the_password_grant_can_be_switched_on(lab: Lab) -> None:
    """With password_grant the right password logs in, a wrong one does not."""
    await lab.http.post("/simulator/settings", json={"password_grant": True})
    user = lab.accounts[0]

    right = await lab.token("password", username=user.user, password=user.password)
    wrong = await lab.token("password", username=user.user, password="guess")

    assert right.json()["scope"] == ["read_station"]
    assert wrong.json() == {"error": "invalid_grant"}


async def test_asking_whether_a_token_is_accepted_does_not_use_it(lab: Lab) -> None:
    """The control route looks without rotating."""
    asked = [
        await lab.http.get("/simulator/token", params={"refresh_token": token})
        for token in (lab.refresh_token(), lab.refresh_token(), "x")
    ]

    assert [a.json()["accepted"] for a in asked] == [True, True, False]


# --- consent -----------------------------------------------------------------------------------


def authorize(lab: Lab, **more: str) -> dict[str, str]:
    plain = {"client_id": lab.apps[0].client_id, "redirect_uri": BACK, "state": "s p&q"}
    return {**plain, "scope": "read_station read_thermostat", "response_type": "code", **more}


def came_back(answer: httpx.Response) -> dict[str, str]:
    """Query of the callback a redirect leads to."""
    assert answer.status_code == 302, answer.text
    assert answer.headers["location"].startswith(BACK)
    parsed = parse_qs(urlsplit(answer.headers["location"]).query)
    return {name: values[0] for name, values in parsed.items()}


async def consent(lab: Lab, **more: str) -> dict[str, str]:
    user = lab.accounts[0]
    form = {"user": user.user, "password": user.password, "decision": "allow"}
    return came_back(await lab.http.post("/oauth2/authorize", data=authorize(lab, **form, **more)))


async def test_consent_with_pkce_leads_to_a_token(lab: Lab) -> None:
    """A code is bound to its redirect_uri and verifier, works once, and echoes the state."""
    verifier = "v" * 50
    digest = hashlib.sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    page = await lab.http.get("/oauth2/authorize", params=authorize(lab))
    back = await consent(lab, code_challenge=challenge, code_challenge_method="S256")
    form: dict[str, Any] = {"code": back["code"], "redirect_uri": BACK, "code_verifier": verifier}

    token = await lab.token("authorization_code", **form)
    again = await lab.token("authorization_code", **form)

    assert "Yes, I accept" in page.text
    assert back["state"] == "s p&q"
    assert token.json()["scope"] == ["read_station", "read_thermostat"]
    assert again.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "change",
    [{"redirect_uri": BACK + "/"}, {"code_verifier": "w" * 50}, {"code": "0" * 32}, {"late": "1"}],
)
async def test_a_code_is_refused_when_anything_differs(lab: Lab, change: dict[str, Any]) -> None:
    """Another redirect_uri, verifier or code, or eleven minutes: invalid_grant."""
    digest = hashlib.sha256(b"v" * 50).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    back = await consent(lab, code_challenge=challenge, code_challenge_method="S256")
    form: dict[str, Any] = {"code": back["code"], "redirect_uri": BACK, "code_verifier": "v" * 50}
    lab.clock.advance(660 if change.pop("late", "") else 60)

    answer = await lab.token("authorization_code", **{**form, **change})

    assert answer.json()["error"] == "invalid_grant"


async def test_a_refusal_comes_back_as_access_denied(lab: Lab) -> None:
    """The No button redirects with the error and the state, without any login."""
    answer = await lab.http.post("/oauth2/authorize", data=authorize(lab, decision="deny"))

    assert came_back(answer) == {"error": "access_denied", "state": "s p&q"}


async def test_a_wrong_password_shows_the_page_again(lab: Lab) -> None:
    """No redirect before somebody has logged in."""
    form = authorize(lab, decision="allow", user=lab.accounts[0].user, password="guess")

    answer = await lab.http.post("/oauth2/authorize", data=form)

    assert answer.status_code == 401
    assert "Wrong e-mail or password" in answer.text
    assert "guess" not in answer.text


async def test_auto_consent_needs_no_page(lab: Lab) -> None:
    """With the switch on, the authorize request itself comes back with a code."""
    await lab.http.post("/simulator/settings", json={"auto_consent": True})

    back = came_back(await lab.http.get("/oauth2/authorize", params=authorize(lab)))

    assert set(back) == {"code", "state"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"client_id": "0" * 24}, "invalid_client"),
        ({"redirect_uri": "https://example.org/steal"}, "redirect_uri_mismatch"),
    ],
)
async def test_an_unsafe_authorize_request_is_not_redirected(
    lab: Lab, change: dict[str, str], code: str
) -> None:
    """Unknown clients and foreign redirect URIs get 400 in place."""
    answer = await lab.http.get("/oauth2/authorize", params=authorize(lab, **change))

    assert (answer.status_code, answer.json()["error"]) == (400, code)


async def test_an_unknown_scope_comes_back_as_invalid_scope(lab: Lab) -> None:
    """A scope that is in no list is refused by redirect."""
    answer = await lab.http.get("/oauth2/authorize", params=authorize(lab, scope="read_minds"))

    assert came_back(answer)["error"] == "invalid_scope"


# --- data --------------------------------------------------------------------------------------


async def test_get_and_post_give_the_same_answer(lab: Lab) -> None:
    """Read methods accept a query and a form."""
    await lab.login()
    headers = {"Authorization": f"Bearer {lab.access}"}

    got = await lab.get("getstationsdata", device_id=lab.station.id)
    form = {"device_id": lab.station.id}
    posted = await lab.http.post("/api/getstationsdata", data=form, headers=headers)

    assert got.json()["body"] == posted.json()["body"]
    assert got.json()["status"] == "ok"
    assert got.json()["time_server"] == int(START)


async def test_an_account_sees_its_own_stations_only(town: Lab) -> None:
    """Foreign ids are unknown; invited stations come as read_only with get_favorites."""
    await town.login()
    own, guest, foreign = (next(iter(a.owns)) for a in town.accounts)

    plain = await town.devices()
    favourites = await town.devices(get_favorites="true")
    refused = await town.get("getstationsdata", device_id=foreign)
    history = await town.get("getmeasure", device_id=foreign, scale="max", type="co2")

    assert [d["_id"] for d in plain] == [own]
    assert [(d["_id"], d.get("read_only")) for d in favourites] == [(own, None), (guest, True)]
    assert error(refused) == (400, 21)
    assert error(history) == (404, 9)


async def test_a_missing_scope_is_code_13(lab: Lab) -> None:
    """A login without read_station may not read stations."""
    await lab.http.post("/simulator/settings", json={"password_grant": True})
    user = lab.accounts[0]
    form: dict[str, Any] = {
        "username": user.user,
        "password": user.password,
        "scope": "read_thermostat",
    }
    lab.access = (await lab.token("password", **form)).json()["access_token"]

    assert error(await lab.get("getstationsdata")) == (403, 13)
    assert error(await lab.get("getmagic")) == (404, 31)


async def test_repeated_types_are_columns(lab: Lab) -> None:
    """type=a&type=b asks for two columns."""
    await lab.login()
    types = ["temperature", "humidity"]

    answer = await lab.get(
        "getmeasure", device_id=lab.station.id, scale="max", type=types, date_end="last"
    )

    [segment] = answer.json()["body"]
    assert "step_time" not in segment
    assert len(segment["value"][0]) == 2


# --- quotas ------------------------------------------------------------------------------------


async def test_fifty_calls_in_ten_seconds_are_allowed(lab: Lab) -> None:
    """The 51st call within ten seconds is refused with 429/26; ten seconds later all is well."""
    await lab.login()

    answers = [await lab.get("getmagic") for _ in range(51)]
    lab.clock.advance(10.1)
    later = await lab.get("getmagic")

    assert [a.status_code for a in answers] == [404] * 50 + [429]
    assert answers[50].json()["error"] == {"code": 26, "message": "Maximum api usage reached"}
    assert later.status_code == 404
    assert (await lab.stats())["over_limit"] == 1


async def test_refused_calls_count_towards_the_hour(lab: Lab) -> None:
    """500 calls an hour; whoever hammers on stays locked out."""
    await lab.login()
    await lab.http.post("/simulator/settings", json={"limits": {"style": "403"}})

    statuses = []
    for _ in range(520):
        lab.clock.advance(3)
        statuses.append((await lab.get("getmagic")).status_code)

    assert statuses == [404] * 500 + [403] * 20
    windows = (await lab.stats())["windows"]
    assert windows[lab.apps[0].client_id] == {"10s": 4, "hour": 520}


async def test_an_application_has_a_quota_of_its_own(town: Lab) -> None:
    """The users of one client id share its hour; another client id has its own."""
    await town.http.post("/simulator/settings", json={"limits": {"app_hour": 10, "style": "403"}})
    tokens = [await town.login(number) for number in range(3)]

    statuses = []
    for token in (tokens[0], tokens[2], tokens[1]):
        town.access = token
        statuses += [(await town.get("getmagic")) for _ in range(6)]

    assert [a.status_code for a in statuses] == [404] * 10 + [403] * 2 + [404] * 6
    assert statuses[10].json()["error"]["message"] == "Application usage reached"


# --- faults ------------------------------------------------------------------------------------


async def test_a_fault_strikes_so_often_as_it_was_told(lab: Lab) -> None:
    """`count` requests of one endpoint fail, the others and the next ones do not."""
    await lab.login()
    await lab.arm("http", status=502, endpoint="getstationsdata", count=2)

    statuses = [
        (await lab.get(name)).status_code
        for name in ("getmagic", "getstationsdata", "getstationsdata", "getstationsdata")
    ]

    assert statuses == [404, 502, 502, 200]


async def test_a_fault_ends_at_its_time(lab: Lab) -> None:
    """`seconds` are simulated seconds."""
    await lab.login()
    await lab.arm("throttle", status=403, message="User usage reached", seconds=60)

    during = await lab.get("getstationsdata")
    lab.clock.advance(60)
    after = await lab.get("getstationsdata")

    assert error(during) == (403, 26)
    assert after.status_code == 200


async def test_a_probability_is_drawn_from_the_seed() -> None:
    """Half of all answers fail, and the same ones in every run of a seed."""
    runs = []
    for _ in range(2):
        again = Lab(Plan(seed=7, origin=START))
        async with again.http:
            await again.login()
            await again.arm("http", probability=0.5)
            runs.append([(await again.get("getmagic")).status_code for _ in range(40)])

    assert runs[0] == runs[1]
    assert 10 < runs[0].count(503) < 30


async def test_faults_of_an_account_leave_the_others_alone(town: Lab) -> None:
    """`account` names the user whose requests fail."""
    await town.arm("concurrency", account=town.accounts[1].user, retry_after=3)

    await town.login(0)
    spared = await town.get("getstationsdata")
    await town.login(1)
    struck = await town.get("getstationsdata")

    assert spared.status_code == 200
    assert error(struck) == (429, 11)
    assert struck.headers["retry-after"] == "3"


async def test_what_is_not_understood_is_refused_with_one_line(lab: Lab) -> None:
    """Unknown kinds and parameters are told, and nothing is armed."""
    unknown = await lab.http.post("/simulator/faults", json={"kind": "earthquake"})
    typo = await lab.http.post("/simulator/faults", json={"kind": "http", "statsu": 500})
    mode = await lab.http.post("/simulator/rotation", json={"mode": "sometimes"})

    assert [a.status_code for a in (unknown, typo, mode)] == [400, 400, 400]
    assert "'statsu'" in typo.json()["error"]
    assert (await lab.http.get("/simulator/faults")).json() == {"armed": []}


WIRE = {"cut", "stall", "slow", "huge", "gzip_bomb"}
STATUS = {"http": 503, "throttle": 429, "concurrency": 429, "error": 400, "redirect": 302}
STATUS |= {"expired_token": 403, "invalid_token": 403, "no_scope": 403}


@pytest.mark.parametrize(
    "kind", sorted(k for k, v in KINDS.items() if v.group == REQUEST and k not in WIRE)
)
async def test_request_faults_have_the_status_of_their_kind(lab: Lab, kind: str) -> None:
    """Each kind answers as the catalogue says; bodies differ, statuses are these."""
    await lab.login()
    await lab.arm(kind, count=1)

    struck = await lab.get("getstationsdata")
    after = await lab.get("getstationsdata")

    assert struck.status_code == STATUS.get(kind, 200)
    assert struck.text != after.text
    assert after.status_code == 200


async def test_a_missing_body_leaves_the_rest_of_the_envelope(lab: Lab) -> None:
    """no_body drops `body` or replaces it."""
    await lab.login()
    await lab.arm("no_body", count=1)
    await lab.arm("no_body", value={}, count=1)

    bare, empty = [(await lab.get("getstationsdata")).json() for _ in range(2)]

    assert set(bare) == {"status", "time_exec", "time_server"}
    assert empty["body"] == {}


@pytest.mark.parametrize(
    ("kind", "spec", "check"),
    [
        ("token_error", {"error": "too_many_connections"}, '{"error": "too_many_connections"}'),
        ("token_html", {}, "<!DOCTYPE"),
        ("token_list", {}, "[{"),
        ("token_nulls", {}, '"refresh_token": null'),
        ("token_missing", {"fields": ["access_token", "scope"]}, '{"refresh_token"'),
        ("token_soon", {}, '"expires_in": "soon"'),
        ("token_huge", {}, '"padding"'),
        ("empty", {"endpoint": "token"}, ""),
        ("http", {"endpoint": "token", "status": 500}, "<html>"),
    ],
)
async def test_token_faults_leave_the_old_token_alive(
    lab: Lab, kind: str, spec: dict[str, Any], check: str
) -> None:
    """Unless told to commit, a spoiled token answer has used up nothing."""
    await lab.arm(kind, count=1, **spec)

    spoiled = await lab.token(refresh_token=lab.refresh_token())
    good = await lab.token(refresh_token=lab.refresh_token())

    assert check in spoiled.text
    assert good.status_code == 200


async def test_a_committed_token_fault_loses_the_answer(lab: Lab) -> None:
    """With commit the cloud has rotated although the client never learns the pair."""
    await lab.arm("empty", endpoint="token", commit=True, count=1)

    await lab.token(refresh_token=lab.refresh_token())
    again = await lab.token(refresh_token=lab.refresh_token())

    assert again.json() == {"error": "invalid_grant"}


async def test_tokens_can_be_ended_from_outside(lab: Lab) -> None:
    """expire_access needs a refresh, revoke a new login."""
    token = (await lab.token(refresh_token=lab.refresh_token())).json()
    lab.access = token["access_token"]

    await lab.arm("expire_access")
    expired = await lab.get("getstationsdata")
    renewed = await lab.token(refresh_token=token["refresh_token"])
    await lab.arm("revoke", account=lab.accounts[0].user)
    revoked = await lab.token(refresh_token=renewed.json()["refresh_token"])

    assert error(expired) == (403, 3)
    assert renewed.status_code == 200
    assert revoked.json() == {"error": "invalid_grant"}


@pytest.mark.parametrize(
    "kind",
    sorted(
        kind
        for kind, of in KINDS.items()
        if of.group == WORLD and kind not in ("revised", "public_outlier") and kind not in HOUSEHOLD
    ),
)
async def test_world_faults_change_an_answer_and_go_away(lab: Lab, kind: str) -> None:
    """Armed, a kind changes what stations or history say; disarmed, all is as before."""
    await lab.login()
    spec: dict[str, Any] = {"hours": 24, "begin": 0} if kind == "late" else {}
    spec |= {"where": "both"} if kind == "future" else {}
    spec |= {"begin": START - 7_200} if kind == "offline" else {}
    before = (await lab.get("getstationsdata", get_favorites="true")).json()["body"]

    await lab.arm(kind, **spec)
    during = (await lab.get("getstationsdata", get_favorites="true")).json()["body"]
    await lab.http.delete("/simulator/faults", params={"kind": kind})
    after = (await lab.get("getstationsdata", get_favorites="true")).json()["body"]

    assert during != before
    assert after == before


async def test_a_module_can_appear_under_two_stations(lab: Lab) -> None:
    """The second appearance has no dashboard."""
    await lab.login()
    module = lab.station.modules[0].id
    await lab.arm("twice", module=module)

    seen = [m for d in await lab.devices() for m in d["modules"] if m["_id"] == module]

    assert ["dashboard_data" in m for m in seen] == [True, False]


async def test_injected_keys_reach_the_client(lab: Lab) -> None:
    """Keys that a store might take for operators stand in devices and dashboards."""
    await lab.login()
    await lab.arm("key_injection", module=lab.station.modules[0].id)

    module = (await lab.devices())[0]["modules"][0]

    assert {"$where", "a.b", "__proto__", ""} <= set(module) & set(module["dashboard_data"])


async def test_rows_of_the_future_stand_behind_the_good_ones(lab: Lab) -> None:
    """A future row is added at scale max even after date_end; the expectation leaves it out."""
    await lab.login()
    await lab.arm("future", module=lab.station.id)
    query = {"device_id": lab.station.id, "scale": "max", "type": "co2", "optimize": "false"}
    window = {"date_begin": int(START) - 3_600, "date_end": int(START)}

    body = (await lab.get("getmeasure", **query, **window)).json()["body"]
    wanted = await lab.http.get(
        "/simulator/expected", params={"module": lab.station.id, "begin": window["date_begin"]}
    )

    stamps = [int(at) for at in body]
    assert stamps[-1] > START + 9 * 365 * 86_400
    assert stamps[:-1] == [at for at, _ in wanted.json()["rows"]]


# --- control -----------------------------------------------------------------------------------


async def test_expected_rows_are_those_that_getmeasure_gives(lab: Lab) -> None:
    """The control route and the data method agree on what is visible, value by value."""
    await lab.login()
    module = lab.station.modules[0]
    query = {"device_id": lab.station.id, "module_id": module.id, "scale": "max"}
    query |= {"type": ",".join(module.fields), "optimize": "false"}
    window = {"begin": int(START) - 80_000, "end": int(START)}

    answer = await lab.http.get("/simulator/expected", params={"module": module.id, **window})
    begin = {"date_begin": window["begin"]}
    body = (await lab.get("getmeasure", **query, **begin)).json()["body"]

    rows = answer.json()["rows"]
    assert {str(at): list(values.values()) for at, values in rows} == body
    assert answer.json()["count"] == len(body) > 260


async def test_stats_tell_who_asked_what(lab: Lab) -> None:
    """Requests are counted by endpoint, purpose, account and status; control routes are not."""
    await lab.login()
    await lab.get("getstationsdata")
    await lab.get("getstationsdata")
    lab.access = "x"
    await lab.get("getstationsdata")

    stats = await lab.stats()

    assert stats["requests"] == 4
    assert stats["by_endpoint"] == {"token": 1, "getstationsdata": 3}
    assert stats["by_purpose"] == {"live": 3}
    assert stats["by_account"] == {lab.accounts[0].user: 2}
    assert stats["by_status"] == {"200": 3, "403": 1}
    assert stats["refused"] == {"403/2": 1}
    assert (stats["running"], stats["high_water"]) == (0, 1)


async def test_the_world_is_described_for_recomputation(town: Lab) -> None:
    """Seed, origin, modules and logins are all one needs to know."""
    described = (await town.http.get("/simulator/world")).json()

    assert described["seed"] == 7
    assert len(described["modules"]) == 21
    assert [a["accepted"] for a in described["accounts"]] == [True] * 3
    assert len({a["client_id"] for a in described["accounts"]}) == 2


@pytest.mark.parametrize(
    "plan",
    [
        Plan(host="0.0.0.0"),
        Plan(host="example.org"),
        Plan(speed=0),
        Plan(stations=0),
        Plan(rotation="often"),
    ],
)
def test_what_cannot_be_simulated_is_a_configuration_error(plan: Plan) -> None:
    """Anything but loopback and sane numbers is refused with one line."""
    with pytest.raises(ConfigError) as refused:
        build(plan)

    assert "\n" not in str(refused.value)


async def test_answers_are_json_that_any_reader_takes(lab: Lab) -> None:
    """No NaN and no infinity where no fault asks for them."""
    await lab.login()
    answer = await lab.get("getstationsdata")

    json.loads(answer.text, parse_constant=pytest.fail)
