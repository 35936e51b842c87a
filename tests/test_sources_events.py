"""`getevents` by cases: one folder under data/security, one case.

response.json  the whole envelope as the cloud sends it
expected.json  `events` in order, `pictures` (each as "<event> <slot>", "…: no address" when only
               the camera has it), `problems`, `drift`; or `raises` with the path of a PayloadError
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd import records
from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Batch, Entity, Event
from netatmo_ingestd.polls import Parsed, Poll
from netatmo_ingestd.sources.events import EVENT_TYPES, GETEVENTS, LEFT_OUT, parse_events
from netatmo_ingestd.sources.reading import scrub
from netatmo_ingestd.upserts import operations
from tests import test_sources_weather as weather

CASES = Path(__file__).parent / "data" / "security"
NAMES = sorted(path.name for path in CASES.glob("events_*"))
HOME = Entity("home", "home", "65800c1a7b2f4e0012ab34c2", "h", "", "home", {})


def read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    envelope, expected = (
        json.loads((CASES / name / f"{part}.json").read_text()) for part in ("response", "expected")
    )
    return envelope, expected


def parse(envelope: dict[str, Any]) -> Parsed:
    return parse_events(weather.reply_of(envelope), Poll(GETEVENTS, "home", target=HOME))


def view(parsed: Parsed) -> dict[str, Any]:
    """Everything in `parsed` as JSON; of an event what it tells."""
    assert all(isinstance(each, Event) for each in parsed.records)
    assert (list(parsed.facts), list(parsed.wants)) == ([], [])
    found: dict[str, Any] = weather._plain(
        {
            "events": [_told(each) for each in parsed.records if isinstance(each, Event)],
            "pictures": [
                f"{each.event_id} {each.slot}" + ("" if each.url else ": no address")
                for each in parsed.pictures
            ],
            "problems": sorted(str(each) for each in parsed.problems if not each.drift),
            "drift": sorted(str(each) for each in parsed.problems if each.drift),
        }
    )
    return found


def _told(event: Event) -> dict[str, Any]:
    fields = {each.name: getattr(event, each.name) for each in dataclasses.fields(event)}
    assert fields.pop("account") == "home"
    assert fields.pop("home_id") == HOME.entity_id
    assert fields.pop("read").timestamp() == 1_760_000_000
    return {name: value for name, value in fields.items() if value not in (None, (), [])}


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str) -> None:
    """The answer of a case becomes what its expected.json says, number types included."""
    envelope, expected = read(name)

    if "raises" in expected:
        with pytest.raises(PayloadError, match="getevents") as caught:
            parse(envelope)
        assert caught.value.path == expected["raises"]
        return

    assert weather._exact(view(parse(envelope))) == weather._exact(expected)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_opens_a_door_is_kept(name: str) -> None:
    """No address, key or signature of an answer stands in a record, or in the raw answer."""
    envelope, expected = read(name)
    if "raises" in expected:
        return

    parsed = parse(envelope)
    kept = json.dumps(scrub(envelope.get("body"), GETEVENTS.secrets))
    stored = records.to_json([records.as_document(each) for each in parsed.records])

    for text in (kept, stored, repr(parsed)):
        for secret in ("sig=", "SECRET", "0123456789abcdef", "://", "user:pw"):
            assert secret not in text, secret


@pytest.mark.parametrize("name", NAMES)
def test_case_is_storable(name: str) -> None:
    """Nothing that comes out of a case is refused by BSON, and its upserts can be made."""
    envelope, expected = read(name)
    if "raises" in expected:
        return

    parsed = parse(envelope)
    documents, _, _ = records.unpack(records.pack(Batch("home", "getevents", parsed.records))[0])

    assert [each["record"] for each in documents] == ["Event"] * len(parsed.records)
    assert all(operations(each) for each in documents)


def test_left_out_is_left_out() -> None:
    """Nothing of a field in LEFT_OUT is in any record, and each of them is one that we read."""
    event = {"id": "e", "type": "outdoor", "time": 1_759_999_000}
    bare = {**event, "subevents": [{"id": "s"}]}
    full: dict[str, Any] = {
        **event,
        "snapshot": {"url": "https://canary/1"},
        "vignette": {"url": "https://canary/2"},
        "vpn_url": "https://canary/3",
        "is_local": True,
        "subevents": [
            {"id": "s", "snapshot": {"filename": "canary"}, "vignette": {"filename": "canary"}}
        ],
    }
    told = [
        {f"events[].{key}" for key in full} | {f"events[].subevents[].{key}" for key in sub}
        for sub in full["subevents"]
    ]

    views = [
        view(parse({"body": {"home": {"events": [each]}}, "time_server": 1_760_000_000}))
        for each in (bare, full)
    ]

    assert set(LEFT_OUT) <= told[0]
    assert views[0]["events"] == views[1]["events"]
    assert views[1]["problems"] == views[1]["drift"] == []


# --- garbage --------------------------------------------------------------------------------------

_EVENT: dict[str, Any] = read("events_reference")[0]["body"]["home"]["events"][2]
_KEYS = sorted({*_EVENT, "person_id", "is_arrival", "sub_type", "category", "snapshot"} - {"id"})
_SUB_KEYS = sorted({key for each in _EVENT["subevents"] for key in each} | {"category"})


@settings(max_examples=200, deadline=None)
@given(
    odd=st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=8), weather._garbage),
    sub=st.dictionaries(st.sampled_from(_SUB_KEYS) | st.text(max_size=8), weather._garbage),
)
def test_one_odd_event_costs_its_neighbours_nothing(
    odd: dict[str, Any], sub: dict[str, Any]
) -> None:
    """Whatever stands in one event's fields, its neighbours are stored unchanged."""
    envelope, expected = read("events_reference")
    strange = {**copy.deepcopy(_EVENT), "subevents": [sub, 5], **odd, "id": "odd"}
    envelope["body"]["home"]["events"].insert(2, strange)

    parsed = parse(envelope)

    events = [_told(each) for each in parsed.records if isinstance(each, Event)]
    assert [each for each in weather._plain(events) if each["event_id"] != "odd"] == expected[
        "events"
    ]
    assert records.pack(Batch("home", "getevents", parsed.records))[1] == len(parsed.records)
    for each in parsed.records:
        assert operations(records.as_document(each))


def test_every_meaning_belongs_to_a_code() -> None:
    """Types whose witnesses contradict each other have no meaning, the others are plain words."""
    assert EVENT_TYPES["hush"] == EVENT_TYPES["battery_status"] == {}
    assert all(word == word.lower() for codes in EVENT_TYPES.values() for word in codes.values())
