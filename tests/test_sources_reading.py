"""Values as they enter: what is a number, an id, a time, and what is kept of the rest."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netatmo_ingestd.polls import Problem
from netatmo_ingestd.sources import reading
from netatmo_ingestd.sources.reading import (
    blocks,
    flag,
    ident,
    kind,
    moment,
    number,
    plain,
    scrub,
    shaped,
    text,
    told,
    unknown,
)

SERVER = datetime(2025, 11, 1, 12, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (21, 21.0),
        (-0.5, -0.5),
        (2**70, float(2**70)),
        (10**400, None),
        (float("inf"), None),
        (float("nan"), None),
        (True, None),
        ("21", None),
        (None, None),
        ([21], None),
    ],
)
def test_number(value: Any, expected: float | None) -> None:
    """Only finite JSON numbers are numbers, and they come out as floats."""
    found = number(value)

    assert found == expected
    assert found is None or type(found) is float


@pytest.mark.parametrize(
    "value",
    ["70:ee:50:00:00:01", "12 :34: 56", " ", "#1 ü", "x" * 64, "a b", "$where", "a.b"],
)
def test_ident_is_opaque(value: str) -> None:
    """An id is kept as it is, blanks and odd letters included."""
    assert ident(value) == value


@pytest.mark.parametrize(
    "value", ["", "x" * 65, "a|b", "a\nb", "a\x00", "\ud800", "ok\n", 7, None, ["a"], True, 2**70]
)
def test_ident_refuses(value: Any) -> None:
    """What would break an `_id` or could not be stored is no id."""
    assert ident(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (946_684_800, datetime(2000, 1, 1, tzinfo=UTC)),
        (946_684_799, None),
        (1_761_998_400, SERVER),
        (1_761_998_400.9, SERVER),
        (1_761_998_400 + 172_800, SERVER + timedelta(days=2)),
        (1_761_998_400 + 172_801, None),
        (0, None),
        (-1, None),
        (1e300, None),
        (10**400, None),
        (True, None),
        ("1761998400", None),
        (None, None),
    ],
)
def test_moment(value: Any, expected: datetime | None) -> None:
    """A time lies between 2000 and two days after the cloud's now, and has whole seconds."""
    assert moment(value, SERVER) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (False, False), (0, None), ("", None)]
)
def test_flag(value: Any, expected: bool | None) -> None:
    """Only true and false are flags."""
    assert flag(value) is expected


@settings(deadline=None)
@given(JSON | st.sampled_from(["\ud800", {"\ud800": ["\udfff"]}, 2**63, -(2**63) - 1, 10**400]))
def test_plain_is_storable(value: Any) -> None:
    """Whatever an unknown field holds, what we keep of it is a scalar that BSON takes."""
    found = plain(value)

    assert isinstance(found, (type(None), bool, int, float, str))
    assert bson.decode(bson.encode({"value": found})).keys() == {"value"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"$set": {"a.b": 1}}, '{"$set": {"a.b": 1}}'),
        ([1, "\ud800"], '[1, "\\ud800"]'),
        (2**63, 2.0**63),
        (2**63 - 1, 2**63 - 1),
        ("a\ud800b", "a?b"),
        (None, None),
    ],
)
def test_plain_keeps_the_value(value: Any, expected: Any) -> None:
    """An unknown field's value stays readable: scalars as they are, the rest as JSON text."""
    found = plain(value)

    assert found == expected
    assert type(found) is type(expected)


def test_plain_survives_any_depth() -> None:
    """A value nested beyond what can be written as text costs itself, not the answer."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    assert plain(deep) == "a list, nested too deeply"


def test_told_says_what_it_did() -> None:
    """A field that cannot be used is a problem, one that was bent is drift, null is neither."""
    block = {
        "null": None,
        "bad": "21",
        "big": 2**63,
        "odd": "a\ud800",
        "fine": 5,
        "long": "x" * 5000,
    }
    problems: list[Problem] = []

    numbers = [told(block, key, number, "p", problems) for key in ("none", "null", "bad", "big")]
    texts = [told(block, key, text, "p", problems) for key in ("odd", "long")]
    fine = told(block, "fine", number, "p", problems)

    assert numbers == [None, None, None, 2.0**63]
    assert (texts, fine) == (["a?", "x" * 4096], 5.0)
    assert [(str(each), each.drift) for each in problems] == [
        ("p.bad: a text that cannot be used", False),
        ("p.big: beyond int64; a double now", True),
        ("p.odd: no clean text; mended", True),
        ("p.long: no clean text; mended", True),
    ]


def test_unknown_fields_open_no_door() -> None:
    """Keys, passwords and addresses of a new field are not kept, however deep they stand."""
    block = {
        "snapshot_url": "https://u:p@x.example/y?key=CANARY",
        "local_password": "CANARY",
        "face": {"key": "CANARY", "id": "a", "more": [{"token": "CANARY"}]},
        "told": "see https://x.example/CANARY or mail canary@example.org",
    }
    strange: list[tuple[str, Any]] = []

    found = unknown(block, (), "body", [])
    shaped({"zone": block}, {"zone": "zone"}, "body", [], strange)

    for each in (found, strange):
        assert "canary" not in str(each).lower()
        assert len(each) == 4
    assert '"id": "a"' in dict(found)["face"]


def test_unknown_fields_are_data() -> None:
    """A field without a name of ours is kept as (name, value) and told once by its path."""
    problems: list[Problem] = []

    found = unknown({"a": 1, "$b.c": {"x": 1}, "": None, "\ud800": 2}, {"a"}, "p", problems)

    assert found == (("$b.c", '{"x": 1}'), ("", None), ("?", 2))
    assert [str(each) for each in problems] == [
        "p.$b.c: unknown field",
        "p.: unknown field",
        "p.?: unknown field",
    ]
    assert all(each.drift for each in problems)


def test_a_nested_value_has_our_names_alone() -> None:
    """All the way down: numbers are doubles, a field without a name is data, a bad leaf is told."""
    problems: list[Problem] = []
    strange: list[tuple[str, Any]] = []
    value = {"id": 7, "on": True, "rooms": [{"id": "a", "$x": [1]}, 2**63, 10**400, "\ud800", None]}

    found = shaped(value, {"id": "id", "on": "is_on", "rooms": "rooms"}, "p.q", problems, strange)

    assert json.dumps(found) == (
        '{"id": 7.0, "is_on": true, "rooms": [{"id": "a"}, 9.223372036854776e+18, null, "?", null]}'
    )
    assert strange == [("rooms[0].$x", "[1]")]
    assert [(str(each), each.drift) for each in problems] == [
        ("p.q.rooms[0].$x: unknown field", True),
        ("p.q.rooms[1]: beyond int64; a double now", True),
        ("p.q.rooms[2]: a number that cannot be used", False),
        ("p.q.rooms[3]: no clean text; mended", True),
    ]


@pytest.mark.parametrize("levels", [12, 13, 500, 100_000])
def test_nesting_has_a_bound(levels: int) -> None:
    """What is nested too deeply for the store is kept as text, however deep it is."""
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    problems: list[Problem] = []

    found = shaped(value, {}, "p", problems, [])

    for _ in range(12):
        (found,) = found
    assert isinstance(found, str)
    assert (found == "end") is (problems == []) is (levels == 12)
    assert len(found) <= 4096


def test_blocks_skips_what_is_no_object() -> None:
    """Objects of a list come with their own index; what stands between them is a problem."""
    problems: list[Problem] = []

    found = list(blocks([{"a": 1}, 7, None, {"b": 2}], "p", problems))

    assert found == [("p[0]", {"a": 1}), ("p[3]", {"b": 2})]
    assert [str(each) for each in problems] == [
        "p[1]: is a number, not an object",
        "p[2]: is null, not an object",
    ]


@pytest.mark.parametrize(("value", "expected"), [(None, 0), ([], 0), ({"0": {}}, 1), ("x", 1)])
def test_blocks_wants_a_list(value: Any, expected: int) -> None:
    """An absent or empty list is fine; something else in its place is one problem."""
    problems: list[Problem] = []

    assert list(blocks(value, "p", problems)) == []
    assert len(problems) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        ({}, "an object"),
        ([], "a list"),
        ("", "a text"),
        (True, "a boolean"),
        (1, "a number"),
        (1.5, "a number"),
    ],
)
def test_kind(value: Any, expected: str) -> None:
    """Messages name JSON types as a reader would."""
    assert kind(value) == expected


# --- scrubbing ------------------------------------------------------------------------------------


def test_scrub_by_path() -> None:
    """The values at secret paths go, through lists too; everything else stays."""
    body = {"user": {"mail": 7, "lang": "nl"}, "homes": [{"key": "k", "n": 1}, {"n": 2}, 5]}

    found = scrub(body, ("user.mail", "homes.*.key", "absent.path", "user.mail.deeper"))

    assert found == {
        "user": {"mail": "removed", "lang": "nl"},
        "homes": [{"key": "removed", "n": 1}, {"n": 2}, 5],
    }
    assert body["user"] == {"mail": 7, "lang": "nl"}


@pytest.mark.parametrize(
    "body",
    [
        {"owner": {"contact": ["write to mia.o'dell+x@mail.example.org now"]}},
        {"mia@example.org": 1},
        ["mia@example.org"],
        "mia@example.org",
        {"a": [[["<mia@example.org>"]]]},
        {"ü": "müller@exämple.org, mia@example.org"},
    ],
)
def test_scrub_finds_mail_anywhere(body: Any) -> None:
    """No mail address survives, wherever an answer of a new shape puts it."""
    assert "@" not in json.dumps(scrub(body, ()), ensure_ascii=False)


@pytest.mark.parametrize(
    "body",
    [
        {"event": {"snapshot": {"url": "HTTPS://host.example/a?sig=canary"}}},
        {"https://host.example/canary": 1},
        [["see rtsp://me:canary@cam/live, please"]],
        r"http:\/\/host.example\/canary",
        {"a": "https://host.example/" + "x" * 3000 + "canary"},
    ],
)
def test_scrub_finds_addresses_anywhere(body: Any) -> None:
    """No web address survives: many of them are keys."""
    assert "canary" not in json.dumps(scrub(body, ()))


def test_scrub_at_any_depth() -> None:
    """A path that begins with `**` names a field wherever it is."""
    body = {"key": 1, "a": [{"key": {"key": 2}}, [{"b": {"key": [3], "kept": 4}}]]}

    assert scrub(body, ("**.key",)) == {
        "key": "removed",
        "a": [{"key": "removed"}, [{"b": {"key": "removed", "kept": 4}}]],
    }


@settings(deadline=None)
@given(JSON)
def test_scrub_changes_nothing_else(body: Any) -> None:
    """An answer without secrets and addresses is kept exactly."""
    body = json.loads(json.dumps(body).replace("@", "a").replace(":/", ":a"))

    assert json.dumps(scrub(body, ("user.mail",))) == json.dumps(body)


def test_without_addresses_leaves_a_long_text_alone() -> None:
    """A text without an address comes back as it is."""
    long = "no address @ all " * 50_000

    assert reading.without_addresses(long) == long
