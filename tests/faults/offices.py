"""A house with an account of Legrand's portal beside that of Netatmo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.house import House, opened, until

GARDEN = {"include": ["Garden"]}


@contextmanager
def office(folder: Path, speed: float, **sections: Any) -> Iterator[House]:
    """A station of Netatmo's, and a building at the portal whose account is called "building"."""
    flags = ("--portal", "1")
    with opened(
        folder, speed=speed, days=1, cloud_flags=flags, account=GARDEN, **sections
    ) as house:
        portal = house.cloud.greeting["portal"]
        me = portal["accounts"][0]
        house.accounts.append(
            {
                "name": "building",
                "provider": "legrand",
                "products": ["emergency", "smarther"],
                **{key: me[key] for key in ("client_id", "client_secret", "sites")},
                "subscription_key": me["subscription_key"],
            }
        )
        house.write_config(legrand={key: portal[key] for key in ("api_url", "auth_url")})
        done = house.run("login", "--account", "building", "--refresh-token-stdin",
                         feed=f"{me['refresh_token']}\n")  # fmt: skip
        assert done.returncode == 0, done.stderr
        house.accounts.pop()  # what the house checks of accounts is Netatmo's
        house.canaries |= {me["subscription_key"], me["refresh_token"]}
        yield house


def told(house: House, begin: float = 0, end: float = 0) -> dict[str, Any]:
    found: dict[str, Any] = house.cloud.ask("GET", f"portal?begin={begin}&end={end}")
    return found


def stored(house: House, collection: str, **where: Any) -> list[dict[str, Any]]:
    with house.database() as database:
        return list(database[collection].find(where))


def waits(house: House, what: str, condition: Any, within: float = 60) -> None:
    until(condition, within=within, what=what, house=house, every=0.2)
