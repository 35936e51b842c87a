"""How a product stands: what of it an account's login shows, and what the cloud refuses. Pure.

Live state leaves out what a scope is missing for without a word (netatmo-api 2), so the scopes of
the login are compared with those of the products.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one product and account.

    state    "granted"; "partly"; "refused", nothing of it; "unknown" without a login, or when the
             cloud did not tell its scopes
    missing  scopes of the product that the login does not have, whoever left them out
    refused  calls that the cloud refuses whatever the login's scopes say, and when each is made
             again, in ISO 8601
    """

    state: str
    missing: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"missing": [*self.missing]}


def standing(
    wanted: Sequence[str],
    granted: Sequence[str] | None,
    calls: Iterable[str],
    refused: Mapping[str, datetime],
) -> Standing:
    """How a product stands.

    wanted   scopes of the product, none when any login will do
    granted  those of the login; None without one, empty when the cloud told none
    calls    what is asked live for the product
    refused  which of its calls the cloud refuses, until when
    """
    missing = tuple(each for each in wanted if granted and each not in granted)
    known = granted is not None and (granted or not wanted)
    nothing = len(missing) == len(wanted) > 0 or (refused and set(calls) <= set(refused))
    some = missing or refused
    return Standing(
        "refused" if nothing else "partly" if some else "granted" if known else "unknown",
        missing,
        {name: each.isoformat(timespec="seconds") for name, each in sorted(refused.items())},
    )
