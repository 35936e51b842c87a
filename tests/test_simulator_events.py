"""getevents of the simulator: pages, growth, faults, and what a store must have."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netatmo_ingestd.simulator import events, happenings, lives
from netatmo_ingestd.simulator.server import Plan
from tests.clocks import START
from tests.filmed import bare, everything, expected, filmed, home, login_with, only, page, pictures
from tests.labs import Lab, error

NOW = int(START)
DAY = 86_400
FILMS = {"person", "movement", "human", "outdoor", "incoming_call"}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with filmed() as found:
        yield found


# --- pages ---------------------------------------------------------------------------------------


async def test_pages_give_every_event_once(lab: Lab) -> None:
    """Page by page or all at once, the same events in the same order: those that are expected."""
    small = await everything(lab, size=37)
    large = await everything(lab, size=100_000)
    told = await expected(lab)

    assert [bare(each) for each in small] == [bare(each) for each in large]
    assert [bare(each) for each in small] == [bare(each) for each in told]
    assert len({each["id"] for each in small}) == len(small)


async def test_a_usual_home_has_some_forty_events_a_day(lab: Lab) -> None:
    """For ninety days back, of every device, and the first page has thirty."""
    told = await expected(lab)

    assert 30 <= len(told) / 90 <= 50
    assert NOW - 90 * DAY <= min(each["time"] for each in told) < NOW - 90 * DAY + DAY / 4
    assert max(each["time"] for each in told) <= NOW
    devices = {each["module_id"] for each in told}
    assert devices == {each.id for each in home(lab).devices}
    assert len(await page(lab)) == 30


async def test_now_and_then_two_neighbours_are_swapped(lab: Lab) -> None:
    """Newest first otherwise: whoever relies on the order is found out."""
    times = [each["time"] for each in await expected(lab)]

    swaps = [i for i in range(len(times) - 1) if times[i] < times[i + 1]]

    assert len(times) / 50 < len(swaps) < len(times) / 8
    for place in swaps:
        times[place], times[place + 1] = times[place + 1], times[place]
    assert times == sorted(times, reverse=True)


async def test_behind_the_oldest_event_there_is_nothing_or_the_same_again(lab: Lab) -> None:
    """By home, and always so for one home."""
    seen = set()
    for number in (0, 1):
        oldest = (await expected(lab, number))[-1]["id"]
        behind = [each["id"] for each in await page(lab, number, event_id=oldest)]
        assert behind == ([oldest] if events.repeats_last(home(lab, number).home_id) else [])
        seen.add(tuple(behind))
    assert len(seen) == 2
    assert 30 < sum(events.repeats_last(str(number)) for number in range(100)) < 70


async def test_old_events_are_forgotten(lab: Lab) -> None:
    """A day later the oldest day is gone, and its events are unknown as `event_id`."""
    oldest = (await expected(lab))[-1]
    lab.clock.advance(DAY)
    await login_with(lab, *lab.accounts[0].scopes)

    assert oldest["id"] not in {each["id"] for each in await expected(lab)}
    answer = await lab.get("getevents", home_id=home(lab).home_id, event_id=oldest["id"])
    assert error(answer) == (400, 21)


async def test_how_long_events_are_kept_is_a_setting(lab: Lab) -> None:
    """Three days instead of ninety."""
    await lab.http.post("/simulator/settings", json={"event_days": 3})

    told = await expected(lab)

    assert min(each["time"] for each in told) >= NOW - 3 * DAY
    assert [each["id"] for each in await everything(lab)] == [each["id"] for each in told]


async def test_nothing_happened_before_the_set_up() -> None:
    """And with nothing at all there is no body."""
    lab = Lab(Plan(seed=7, days=2, origin=START, products=("security",)))
    async with lab.http:
        await lab.login()
        told = await expected(lab)
        setups = {each.id: each.setup for each in home(lab).devices}
        assert all(each["time"] >= setups[each["module_id"]] for each in told)
        assert NOW - 2 * DAY < told[-1]["time"] < NOW - 1.5 * DAY

        await lab.http.post("/simulator/settings", json={"event_days": 0})
        answer = await lab.get("getevents", home_id=home(lab).home_id)
    assert answer.status_code == 200
    assert "body" not in answer.json()


async def test_what_is_asked_wrongly_is_refused(lab: Lab) -> None:
    """No home, another's home, a size or an event that is none."""
    home_id = home(lab).home_id
    foreign = (await page(lab, 1))[0]["id"]

    assert error(await lab.get("getevents")) == (400, 10)
    assert error(await lab.get("getevents", home_id="0" * 24)) == (400, 21)
    for params in (
        {"size": "0"},
        {"size": "many"},
        {"event_id": "none"},
        {"event_id": "z" * 24},
        {"event_id": foreign},
        {"event_id": f"{NOW + DAY:08x}{0:016x}"},
    ):
        assert error(await lab.get("getevents", home_id=home_id, **params)) == (400, 21), params
    answer = await lab.http.get("/simulator/expected", params={"events": "none"})
    assert answer.status_code == 400


async def test_events_take_a_scope_each(lab: Lab) -> None:
    """Without any it is refused; with one, what its devices did."""
    smoke, camera = await page(lab, size=100_000), (await page(lab))[0]
    await login_with(lab)
    assert error(await lab.get("getevents", home_id=home(lab).home_id)) == (403, 13)

    await login_with(lab, "read_smokedetector")
    alone = await everything(lab)

    device = only(lab, "NSD").id
    assert alone
    assert [e["id"] for e in alone] == [e["id"] for e in smoke if e["module_id"] == device]
    query = {"home_id": home(lab).home_id, "event_id": camera["id"]}
    assert camera["module_id"] != device
    assert error(await lab.get("getevents", **query)) == (400, 21)


# --- what happens --------------------------------------------------------------------------------


async def test_events_agree_with_the_state_of_the_home(lab: Lab) -> None:
    """Doors, persons and monitoring: what homestatus would have shown at that moment."""
    told, hh = await expected(lab), home(lab)
    tag, camera = only(lab, "NACamDoorTag"), only(lab, "NACamera")
    persons = {each.id: each for each in hh.persons}

    opened = [each for each in told if each["type"] == "tag_open"]
    assert len(opened) > 900
    for each in opened:
        assert lives.door_open(tag, each["time"])
        assert not lives.door_open(tag, each["time"] - 1)
        assert (each["module_id"], each["camera_id"]) == (tag.id, camera.id)
    arrivals = [each for each in told if each.get("is_arrival")]
    assert len(arrivals) in (2 * 89, 2 * 90, 2 * 91)
    for each in arrivals:
        person = persons[each["person_id"]]
        assert lives.is_away(person, each["time"] - 1)
        assert not lives.is_away(person, each["time"])
        assert each["message"] == f"<b>{person.name}</b> arrived"
    by_id = {each.id: each for each in hh.devices}
    switched = Counter(each["type"] for each in told if each["type"] in ("on", "off"))
    assert switched["on"] >= 30 <= switched["off"]
    for each in told:
        device = by_id[each["module_id"]]
        if each["type"] in ("on", "off"):
            assert lives.monitoring(device, each["time"]) == each["type"]
            assert lives.monitoring(device, each["time"] - 1) != each["type"]
        elif each["type"] in FILMS:
            assert lives.monitoring(device, each["time"]) == "on"


async def test_every_device_has_events_of_its_types(lab: Lab) -> None:
    """sub_type is an integer, messages have markup, a doorbell rings where there is one."""
    told = await expected(lab)
    kinds: dict[str, set[str]] = {}
    names = {each.id: each.type for each in home(lab).devices}
    for each in told:
        kinds.setdefault(names[each["module_id"]], set()).add(each["type"])

    assert kinds["NACamera"] >= {"person", "person_away", "movement", "human", "connection"}
    assert kinds["NOC"] >= {"outdoor", "disconnection"}
    assert kinds["NIS"] == {"siren_sounding", "siren_tampered"}
    assert kinds["NSD"] >= {"smoke", "wifi_status", "sound_test", "hush"}
    assert kinds["NCO"] >= {"co_detected", "wifi_status", "sound_test"}
    coded = [each for each in told if names[each["module_id"]] in ("NSD", "NCO", "NIS")]
    assert all(type(each["sub_type"]) is int for each in coded)
    assert any("<b>" in each["message"] for each in told)


async def test_a_doorbell_rings(tmp_path: Path) -> None:
    """Each ring is answered or missed half a minute later."""
    scenario = tmp_path / "homes.toml"
    scenario.write_text('[[homes]]\nproducts = ["security"]\ncameras = 3\n')
    lab = Lab(Plan(seed=7, days=30, origin=START, scenario=scenario))
    async with lab.http:
        told = await expected(lab)
    mine = [each for each in told if each["module_id"] == only(lab, "NDB").id]
    rings = {each["time"] + 30 for each in mine if each["type"] == "incoming_call"}
    answers = {each["time"] for each in mine if each["type"] in ("missed_call", "accepted_call")}

    assert len(rings) > 20
    assert answers - rings == set()
    assert all(each > NOW - 60 for each in rings - answers)


async def test_an_event_grows_for_some_minutes(lab: Lab) -> None:
    """Its video is recorded, then available; sub-events join it; nothing else about it changes."""
    hh = home(lab)
    event = next(
        each
        for each in happenings.shown(hh, NOW + DAY)
        if len(each.parts) > 2 and each.time > NOW and each.deleted_s is None
    )
    lab.clock.advance(event.time - NOW - 1)
    await login_with(lab, *lab.accounts[0].scopes)
    assert event.id not in {each["id"] for each in await page(lab)}

    seen = []
    for seconds in (
        1,
        *(b.time - a.time for a, b in zip(event.parts, event.parts[1:], strict=False)),
    ):
        lab.clock.advance(seconds)
        seen.append(next(each for each in await page(lab) if each["id"] == event.id))
    lab.clock.advance(event.time + event.recorded_s - lab.clock.time())
    last = next(each for each in await page(lab) if each["id"] == event.id)

    assert [len(each["subevents"]) for each in seen] == list(range(1, len(event.parts) + 1))
    assert seen[0]["video_status"] == "recording"
    assert last["video_status"] == "available"
    assert [each["offset"] for each in last["subevents"]] == [p.offset for p in event.parts]
    for each in seen:
        changed = {key for key in bare(last) if bare(each)[key] != bare(last)[key]}
        assert changed <= {"video_status", "subevents"}


async def test_some_videos_are_deleted_within_the_hour(lab: Lab) -> None:
    """One in about sixteen; the pictures of the event stay."""
    films = [each for each in happenings.shown(home(lab), NOW) if each.video]
    gone = [each for each in films if each.deleted_s is not None]
    assert len(films) / 30 < len(gone) < len(films) / 9
    assert all(e.recorded_s < (e.deleted_s or 0) <= 2_700 for e in gone)

    event = next(
        e
        for e in happenings.shown(home(lab), NOW + 3 * DAY)
        if e.deleted_s and e.shots and e.time > NOW
    )
    lab.clock.advance(event.time + (event.deleted_s or 0) - NOW - 1)
    await login_with(lab, *lab.accounts[0].scopes)
    told = []
    for _ in range(2):
        told.append(next(each for each in await page(lab) if each["id"] == event.id))
        lab.clock.advance(1)

    assert [each["video_status"] for each in told] == ["available", "deleted"]
    assert pictures(told[0]).keys() == pictures(told[1]).keys() != set()


# --- faults --------------------------------------------------------------------------------------


async def test_event_garbled(lab: Lab) -> None:
    """One event is garbage but for its id; the others, and what is expected, are as they were."""
    before = [bare(each) for each in await page(lab)]
    place = next(i for i, each in enumerate(before) if each["type"] == "person")
    await lab.arm("event_garbled", event=before[place]["id"])

    after = [bare(each) for each in await page(lab)]

    assert after[place]["id"] == before[place]["id"]
    assert all(after[place][key] != before[place][key] for key in after[place] if key != "id")
    assert after[:place] + after[place + 1 :] == before[:place] + before[place + 1 :]
    assert bare((await expected(lab))[place]) == before[place]


async def test_event_unknown_type(lab: Lab) -> None:
    """The first of an answer is of a type that nobody knows; other methods use nothing up."""
    before = [bare(each) for each in await page(lab)]
    await lab.arm("event_unknown_type", count=1)
    await lab.get("homesdata")

    after = [bare(each) for each in await page(lab)]

    assert [bare(each) for each in await page(lab)] == before
    assert after[0] == before[0] | {"type": "teleported"}
    assert after[1:] == before[1:]
