"""What an answer says against the one before: intervals, changes, vanishing, who may speak."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from netatmo_ingestd import records
from netatmo_ingestd.changes import Known, compare, from_row, to_row
from netatmo_ingestd.models import Change, Entity, Record, State

START = datetime(2025, 11, 1, tzinfo=UTC)
EVERY = timedelta(minutes=10)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def module(
    module_id: str = "m",
    account: str = "me",
    *,
    read_only: bool = False,
    state: dict[str, Any] | None = None,
    **description: Any,
) -> Entity:
    return Entity(
        account,
        "module",
        module_id,
        "h",
        "d",
        "NAMain",
        description or {"name": "Parlour"},
        state={"reachable": True} if state is None else state,
        read_only=read_only,
    )


class House:
    """Answers one after the other; what is remembered goes through a row of `last` each time."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}

    def answer(
        self,
        at: timedelta,
        entities: Iterable[Entity],
        account: str = "me",
        *others: House,
        lists: bool = True,
    ) -> list[Record]:
        """What comes of an answer; `others` are the endpoints beside this one."""
        found, update = compare(
            self.known,
            entities,
            account,
            START + at,
            EVERY,
            lists=lists,
            elsewhere=lambda entity_id: [
                each.known[entity_id] for each in others if entity_id in each.known
            ],
        )
        for entity_id, known in update.items():
            row = records.from_json(records.to_json(to_row(known)))
            self.known[entity_id] = from_row(entity_id, row)
        return found


def changes(found: list[Record]) -> list[tuple[str, str, Any, Any]]:
    return [
        (each.what, each.entity_id, each.before, each.after)
        for each in found
        if isinstance(each, Change)
    ]


def intervals(found: list[Record]) -> list[tuple[timedelta, timedelta, Any]]:
    return [
        (each.time - START, each.until - START, each.values)
        for each in found
        if isinstance(each, State)
    ]


def entities(found: list[Record]) -> list[Entity]:
    return [each for each in found if isinstance(each, Entity)]


# --- descriptions ---------------------------------------------------------------------------------


def test_the_first_answer_adds() -> None:
    """An unknown entity is stored, begins an interval and is a change with all of its facts."""
    found = House().answer(HOUR, [module(name="Parlour", firmware=206.0)])

    assert [type(each).__name__ for each in found] == ["Entity", "State", "Change"]
    assert changes(found) == [("added", "m", {}, {"name": "Parlour", "firmware": 206.0})]
    assert intervals(found) == [(HOUR, HOUR, {"reachable": True})]


def test_the_same_answer_changes_nothing() -> None:
    """An equal answer stores the entity again and prolongs its interval, no more."""
    house = House()
    house.answer(HOUR, [module(types=["CO2", "Noise"], at=START)])

    found = house.answer(HOUR + EVERY, [module(types=["CO2", "Noise"], at=START)])

    assert changes(found) == []
    assert intervals(found) == [(HOUR, HOUR + EVERY, {"reachable": True})]


def test_only_what_changed_is_told() -> None:
    """A change holds the changed fields before and after, and no others."""
    house = House()
    house.answer(HOUR, [module(name="Parlour", firmware=206.0, home="h1")])

    found = house.answer(HOUR + EVERY, [module(name="Salon", firmware=207.0, home="h1")])

    assert changes(found) == [
        (
            "changed",
            "m",
            {"name": "Parlour", "firmware": 206.0},
            {"name": "Salon", "firmware": 207.0},
        )
    ]


def test_fields_on_one_side_only_are_not_compared() -> None:
    """A field that goes, comes or comes back equal is no change; one that comes back other is."""
    house = House()
    house.answer(HOUR, [module(name="Parlour", city="Hoorn")])

    gone = house.answer(2 * HOUR, [module(name="Parlour")])
    back = house.answer(3 * HOUR, [module(name="Parlour", city="Hoorn", firmware=1.0)])
    gone_again = house.answer(4 * HOUR, [module(firmware=1.0)])
    other = house.answer(5 * HOUR, [module(name="Parlour", city="Delft", firmware=1.0)])

    assert (changes(gone), changes(back), changes(gone_again)) == ([], [], [])
    assert changes(other) == [("changed", "m", {"city": "Hoorn"}, {"city": "Delft"})]
    assert entities(gone)[0].description == {"name": "Parlour", "city": "Hoorn"}


def test_a_home_once_told_is_kept() -> None:
    """An answer without home id does not take the module out of its home."""
    house = House()
    house.answer(HOUR, [module()])
    homeless = Entity("me", "module", "m", "", "d", "NAMain", {"name": "Parlour"})

    found = house.answer(HOUR + EVERY, [homeless])

    assert entities(found)[0].home_id == "h"


# --- intervals ------------------------------------------------------------------------------------


def test_a_new_state_begins_an_interval() -> None:
    """When a discrete field changes, the old interval ends at its last confirmation."""
    house = House()
    first = house.answer(HOUR, [module()])
    second = house.answer(HOUR + EVERY, [module()])

    third = house.answer(HOUR + 2 * EVERY, [module(state={"reachable": False})])

    assert [intervals(each)[0][:2] for each in (first, second, third)] == [
        (HOUR, HOUR),
        (HOUR, HOUR + EVERY),
        (HOUR + 2 * EVERY, HOUR + 2 * EVERY),
    ]
    assert intervals(third)[0][2] == {"reachable": False}


@pytest.mark.parametrize(
    ("gap", "continues"),
    [
        (EVERY, True),
        (3 * EVERY, True),
        (3 * EVERY + timedelta(minutes=4), True),
        (4 * EVERY - timedelta(minutes=4), False),
        (4 * EVERY, False),
        (DAY, False),
    ],
)
def test_missed_polls(gap: timedelta, continues: bool) -> None:
    """Two missed polls leave an interval whole, jitter included; more begin a new one."""
    house = House()
    house.answer(HOUR, [module()])

    found = house.answer(HOUR + gap, [module()])

    begin = HOUR if continues else HOUR + gap
    assert intervals(found) == [(begin, HOUR + gap, {"reachable": True})]


def test_state_fields_that_are_not_told_stay() -> None:
    """A discrete field that an answer leaves out keeps its value and its interval."""
    house = House()
    house.answer(HOUR, [module(state={"reachable": True, "calibrating": False})])

    found = house.answer(HOUR + EVERY, [module(state={"reachable": True})])

    assert intervals(found) == [(HOUR, HOUR + EVERY, {"reachable": True, "calibrating": False})]


def test_what_cannot_be_reached_is_in_no_state() -> None:
    """A boiler that was on when its thermostat fell silent does not burn on in the records."""
    house = House()
    house.answer(HOUR, [module(state={"reachable": True, "boiler": True})])

    found = house.answer(HOUR + EVERY, [module(state={"reachable": False})])
    again = house.answer(HOUR + 2 * EVERY, [module(state={"reachable": True, "boiler": False})])

    assert intervals(found) == [(HOUR + EVERY, HOUR + EVERY, {"reachable": False})]
    last = HOUR + 2 * EVERY
    assert intervals(again) == [(last, last, {"reachable": True, "boiler": False})]


def test_no_state_no_interval() -> None:
    """An entity without discrete facts, a home for instance, has no intervals."""
    assert intervals(House().answer(HOUR, [module(state={})])) == []


def test_an_older_answer_shortens_nothing() -> None:
    """A cloud clock that goes back never moves an interval's end back."""
    house = House()
    house.answer(2 * HOUR, [module()])

    found = house.answer(HOUR, [module()])

    assert intervals(found) == [(2 * HOUR, 2 * HOUR, {"reachable": True})]


# --- vanished, returned ---------------------------------------------------------------------------


def test_vanished_after_a_day_and_three_answers() -> None:
    """An entity vanishes once: absent from three answers at least and for 24 h at least."""
    house = House()
    house.answer(HOUR, [module(), module("n")])

    early = [house.answer(HOUR + at * HOUR, [module("n")]) for at in (1, 5, 23)]
    late = house.answer(HOUR + DAY, [module("n")])
    after = house.answer(HOUR + 2 * DAY, [module("n")])

    assert [changes(each) for each in early] == [[], [], []]
    assert changes(late) == [("vanished", "m", {}, {})]
    assert changes(after) == []
    assert house.known["m"].vanished


def test_a_day_alone_is_not_enough() -> None:
    """Two answers after a long outage make nothing vanish; the third does."""
    house = House()
    house.answer(HOUR, [module(), module("n")])

    found = [changes(house.answer(at * DAY, [module("n")])) for at in (10, 11, 12)]

    assert found == [[], [], [("vanished", "m", {}, {})]]


def test_empty_answers_make_nothing_vanish() -> None:
    """An answer without any entity is no evidence that they are gone."""
    house = House()
    house.answer(HOUR, [module()])

    found = [house.answer(at * DAY, []) for at in range(1, 9)]

    assert found == [[]] * 8
    assert house.known["m"].absent == 0


def test_being_seen_starts_the_count_again() -> None:
    """Absences count only when they follow each other."""
    house = House()
    house.answer(HOUR, [module(), module("n")])
    for at in (1, 2):
        house.answer(at * DAY, [module("n")])
    house.answer(3 * DAY, [module(), module("n")])

    found = [changes(house.answer(at * DAY, [module("n")])) for at in (4, 5)]

    assert found == [[], []]


def test_returned() -> None:
    """A vanished entity that is seen again returns, once, with a new interval."""
    house = House()
    house.answer(HOUR, [module(), module("n")])
    for at in (1, 2, 3):
        house.answer(at * DAY, [module("n")])

    back = house.answer(4 * DAY, [module(name="Salon"), module("n")])
    again = house.answer(4 * DAY + EVERY, [module(name="Salon"), module("n")])

    assert changes(back) == [
        ("returned", "m", {}, {}),
        ("changed", "m", {"name": "Parlour"}, {"name": "Salon"}),
    ]
    assert intervals(back)[0] == (4 * DAY, 4 * DAY, {"reachable": True})
    assert changes(again) == []


# --- two accounts ---------------------------------------------------------------------------------


def test_one_account_describes() -> None:
    """What a second account says of a module is not stored while the first one sees it."""
    house = House()
    house.answer(HOUR, [module(name="Parlour")])

    found = house.answer(HOUR + EVERY, [module(account="you", name="Their name")], "you")

    assert found == []
    assert house.known["m"].entity.account == "me"


def test_the_owner_speaks_before_a_guest() -> None:
    """An account that owns a module takes over at once from one that was only invited."""
    house = House()
    house.answer(HOUR, [module(account="you", read_only=True, name="Theirs")], "you")

    mine = house.answer(HOUR + EVERY, [module(name="Mine")])
    theirs = house.answer(
        HOUR + 2 * EVERY, [module(account="you", read_only=True, name="Theirs")], "you"
    )

    assert changes(mine) == [("changed", "m", {"name": "Theirs"}, {"name": "Mine"})]
    assert theirs == []


@pytest.mark.parametrize(
    ("silent", "taken"),
    [(timedelta(days=6, hours=23), False), (timedelta(days=7, seconds=1), True)],
)
def test_takeover_after_a_week(silent: timedelta, taken: bool) -> None:
    """Another account describes a module when its owner has not for more than 7 days."""
    house = House()
    house.answer(HOUR, [module()])

    found = house.answer(HOUR + silent, [module(account="you")], "you")

    assert bool(found) is taken
    assert house.known["m"].entity.account == ("you" if taken else "me")


def test_one_accounts_answer_says_nothing_about_anothers() -> None:
    """Modules of one account do not vanish because another account's answers lack them."""
    house = House()
    house.answer(HOUR, [module()])

    found = [house.answer(at * DAY, [module("n", "you")], "you") for at in range(1, 6)]

    assert not any(each[0] == "vanished" for answer in found for each in changes(answer))
    assert not house.known["m"].vanished


def test_lost_by_one_account_and_taken_by_another() -> None:
    """A module that moves to another account vanishes from the first and returns by the second."""
    house = House()
    house.answer(HOUR, [module(), module("n")])
    found: list[Any] = []

    for day in range(1, 10):
        found += changes(house.answer(day * DAY, [module("n")]))
        found += changes(house.answer(day * DAY + HOUR, [module(account="you")], "you"))

    assert [each[:2] for each in found] == [("vanished", "m"), ("returned", "m")]
    assert house.known["m"].entity.account == "you"


def test_an_empty_house_is_remembered_as_it_was() -> None:
    """A row of `last` brings back everything that comparing needs."""
    entity = Entity(
        "me", "module", "m", "h", "d", "NAMain", {"n": 1.0}, setup=START, read_only=True
    )
    known = Known(entity, START, START + HOUR, absent=2, vanished=True)

    assert from_row("m", records.from_json(records.to_json(to_row(known)))) == known


# --- several endpoints ----------------------------------------------------------------------------


def test_what_another_endpoint_told_is_not_told_again() -> None:
    """Added and renamed count once; what the endpoints tell differently counts for each."""
    one, two = House(), House()
    one.answer(HOUR, [module(name="Parlour", firmware=1.0)])

    added = two.answer(HOUR, [module(name="Parlour", city="Hoorn")], "me", one)
    one.answer(2 * HOUR, [module(name="Salon", firmware=1.0)], "me", two)
    renamed = two.answer(2 * HOUR, [module(name="Salon", city="Delft")], "me", one)

    assert changes(added) == []
    assert [type(each).__name__ for each in added] == ["Entity", "State"]
    assert changes(renamed) == [("changed", "m", {"city": "Hoorn"}, {"city": "Delft"})]


def test_a_rename_that_one_endpoint_takes_back_is_told() -> None:
    """Two names in turn are two changes, whoever told the first."""
    one, two = House(), House()
    for each in (one, two):
        each.answer(HOUR, [module(name="Parlour")])
    one.answer(2 * HOUR, [module(name="Salon")], "me", two)
    two.answer(2 * HOUR, [module(name="Salon")], "me", one)

    found = two.answer(3 * HOUR, [module(name="Attic")], "me", one)

    assert changes(found) == [("changed", "m", {"name": "Salon"}, {"name": "Attic"})]


def test_vanished_from_the_last_endpoint_that_listed_it() -> None:
    """One that lacks it makes nothing vanish while another has it; both do, once."""
    one, two = House(), House()
    for each in (one, two):
        each.answer(HOUR, [module(), module("n")])

    alone = [changes(one.answer(at * DAY, [module("n")], "me", two)) for at in (1, 2, 3, 4)]
    both = [changes(two.answer(at * DAY, [module("n")], "me", one)) for at in (5, 6, 7, 8)]

    assert alone == [[]] * 4
    assert both == [[], [], [("vanished", "m", {}, {})], []]


def test_returned_to_the_first_endpoint_that_lists_it_again() -> None:
    """The other one has it back without a word; so has one where it was not gone elsewhere."""
    one, two = House(), House()
    for each in (one, two):
        each.answer(HOUR, [module(), module("n")])
    for at in (1, 2, 3):
        one.answer(at * DAY, [module("n")], "me", two)
    here = one.answer(4 * DAY, [module(), module("n")], "me", two)
    for at in (5, 6, 7):
        one.answer(at * DAY, [module("n")], "me", two)
        two.answer(at * DAY, [module("n")], "me", one)

    back = two.answer(8 * DAY, [module(), module("n")], "me", one)
    again = one.answer(8 * DAY, [module(), module("n")], "me", two)

    assert changes(here) == []
    assert changes(back) == [("returned", "m", {}, {})]
    assert changes(again) == []


def test_what_lists_nothing_neither_adds_nor_vanishes() -> None:
    """Live state tells what changed, and no more than that."""
    house = House()
    first = house.answer(HOUR, [module(firmware=1.0), module("n")], lists=False)
    gone = [house.answer(at * DAY, [module("n")], lists=False) for at in (1, 2, 3, 4)]
    back = house.answer(5 * DAY, [module(firmware=2.0), module("n")], lists=False)

    assert [changes(each) for each in (first, *gone)] == [[]] * 5
    assert changes(back) == [("changed", "m", {"firmware": 1.0}, {"firmware": 2.0})]
    assert not house.known["m"].vanished


def test_a_state_that_is_none_has_ended() -> None:
    """It is in no interval, and its end begins a new one."""
    house = House()
    house.answer(HOUR, [module(state={"mode": "manual", "end": 7.0})])

    ended = house.answer(HOUR + EVERY, [module(state={"mode": "manual", "end": None})])
    same = house.answer(HOUR + 2 * EVERY, [module(state={"mode": "manual", "end": None})])
    left_out = house.answer(HOUR + 3 * EVERY, [module(state={"mode": "manual"})])

    begin = HOUR + EVERY
    for count, found in enumerate((ended, same, left_out)):
        until = begin + count * EVERY
        assert intervals(found) == [(begin, until, {"mode": "manual"})]
        assert entities(found)[0].state == {"mode": "manual", "end": None}
