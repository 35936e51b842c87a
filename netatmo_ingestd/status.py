"""Reads everyone, judges healthy or not, writes `status.json`.

Health is a file that goes stale: it works while MongoDB is down, and a hung daemon shows itself by
its age. No secret ever stands in it.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from netatmo_ingestd import __version__, logs
from netatmo_ingestd.account import AccountPolls
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.errors import IngestError
from netatmo_ingestd.events import EventWalker
from netatmo_ingestd.history import Historian
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.memory import Memory, rank
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.oauth import TokenManager
from netatmo_ingestd.poller import Poller
from netatmo_ingestd.process import is_running
from netatmo_ingestd.providers import not_granted
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.standing import standing
from netatmo_ingestd.writer import Writer

EVERY_S = 5.0  # real time
STALE_S = 60.0
WATCHDOG_S = 120.0  # scheduler or spool without progress for so long: hung
SILENT_POLLS = 3


class Growth:
    """What the store takes on disk, looked at once an hour, and how fast that grows."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=25)

    def note(self, size: int, at: float) -> None:
        """`size` in bytes at `at` (monotonic seconds)."""
        self._samples.append((at, size))

    def as_dict(self) -> dict[str, int | None]:
        """bytes, and bytes_per_day over the last day at most; None while unknown."""
        if not self._samples:
            return {"bytes": None, "bytes_per_day": None}
        (began, before), (now, size) = self._samples[0], self._samples[-1]
        grown = round((size - before) * 86_400 / (now - began)) if now > began else None
        return {"bytes": size, "bytes_per_day": grown}


@dataclass(frozen=True)
class Reporter:
    """Everything that is looked at."""

    path: Path
    poller: Poller
    historian: Historian
    writer: Writer
    spool: Spool
    store: Store
    ledger: Ledger
    memory: Memory
    walker: EventWalker
    tokens: Mapping[str, TokenManager]
    clock: Clock
    store_name: str
    started: float
    growth: Growth
    # What others add to it, by key.
    more: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def snapshot(self) -> dict[str, Any]:
        """The whole state, as `status --json` prints it."""
        counters = asdict(self.writer.counters)
        accounts = {name: self._account(account) for name, account in self.poller.accounts.items()}
        history = {
            module_id: each
            for name, account in self.poller.accounts.items()
            if self.ledger.loaded  # before that nothing is known, so nothing is told
            for module_id, each in self.historian.progress(
                account, accounts[name]["budget"]["granted"]
            ).items()
        }
        result: dict[str, Any] = {
            "version": __version__,
            "pid": os.getpid(),
            "written": time.time(),
            "started": self.started,
            "time": self.clock.now().isoformat(timespec="seconds"),
            "accounts": accounts,
            "modules": self._modules(history),
            "spool": {
                "batches": self.spool.batches,
                "records": self.spool.records,
                "bytes": self.spool.bytes,
                "fill": round(self.spool.fill, 4),
                "oldest": self.spool.oldest,
                "polling_paused": bool(self.poller.room.paused),
                "error": self.poller.room.paused,
                "damaged": str(self.spool.damaged) if self.spool.damaged else None,
            },
            "store": {
                "name": self.store_name,
                **counters,
                "bulk_size": self.writer.bulk_size,
                "warnings": dict(self.store.warnings),
                **self.growth.as_dict(),
            },
            "pictures": asdict(self.walker.gallery.counters) if self.walker.gallery else None,
            "ledger": {"loaded": self.ledger.loaded, "documents": len(self.ledger)},
            "drift": dict(self.memory.drift),
            "problems": dict(self.memory.problems),
            "webhook": None,
        } | {name: tell() for name, tell in self.more.items()}
        result["troubles"] = troubles(result)
        result["hints"] = hints(result)
        result["healthy"] = not result["troubles"]
        return result

    def _account(self, account: AccountPolls) -> dict[str, Any]:
        usage = account.budget.usage(account.name)
        return {
            "login": self.tokens[account.name].status(),
            "budget": asdict(usage),
            "stretch": round(account.stretch, 2),
            "failing": {name: asdict(each) for name, each in account.failing.items()},
            "not_granted": self._not_granted(account),
            "products": self._products(account),
            "refused": {name: str(until) for name, until in account.refused.items()},
            "last_good": {name: _iso(each) for name, each in account.last_good.items()},
            "late": sorted(
                {
                    endpoint.name
                    for endpoint, entity_id in account.jobs()
                    if endpoint.name in account.last_good
                    and (self.clock.now() - account.last_good[endpoint.name])
                    > SILENT_POLLS * self.poller.interval(account, (endpoint, entity_id))
                }
            ),
        }

    def _not_granted(self, account: AccountPolls) -> dict[str, tuple[str, ...]]:
        """Of each product the scopes that its login asked for and did not get."""
        granted = self.tokens[account.name].status()["scopes"]
        names = (source.name for source in account.sources)
        # Without a login nothing was refused; an odd cloud may tell no scopes at all.
        return not_granted(names, account.asked, granted) if granted else {}

    def _products(self, account: AccountPolls) -> dict[str, dict[str, Any]]:
        """How each product of an account stands."""
        login = self.tokens[account.name].status()
        granted = None if login["state"] in ("none", "dead") else login["scopes"]
        found = {}
        for source in account.sources:
            calls = [each.name for each in source.endpoints]
            refused = {
                call: until
                for call, until in account.refused.items()
                if until > self.clock.now()
                # A call of its own, or its part of one that products share; never single modules.
                and (call in calls or call.partition(" ")[2] == source.name)
            }
            # What has no modules of its own takes any login.
            wanted = source.scopes if source.module_types else ()
            found[source.name] = standing(wanted, granted, calls, refused).as_dict()
        return found

    def _modules(self, history: Mapping[str, Any]) -> list[dict[str, Any]]:
        described = [
            (module_id, known)
            for endpoint in sorted(self.memory.known, key=rank, reverse=True)
            for module_id, known in sorted(self.memory.known[endpoint].items())
            if known.entity.kind == "module"
            or (known.entity.kind != "station" and module_id in history)
        ]
        found: dict[str, dict[str, Any]] = {}
        for module_id, known in described:
            description = known.entity.description
            told = {
                "id": module_id,
                "account": known.entity.account,
                "name": description.get("name", ""),
                "home": description.get("home_name", ""),
                "type": known.entity.type,
                "reachable": known.entity.state.get("reachable"),
                "vanished": known.vanished,
                "newest": _iso(self.memory.newest.get(module_id)),
                "history": history.get(module_id),
            }
            before = found.setdefault(module_id, told)
            before["vanished"] = before["vanished"] and known.vanished
            if before["reachable"] is None:
                before["reachable"] = told["reachable"]
        return list(found.values())

    def write(self, *, ended: bool = False) -> None:
        """Replace `status.json` in one step; a full disk costs the report, nothing else."""
        report = logs.REDACTOR(None, "", self.snapshot() | {"ended": ended})
        fresh = self.path.with_suffix(".json.next")
        try:
            fresh.write_text(json.dumps(report, indent=1), encoding="utf-8")
            fresh.replace(self.path)
        except OSError:
            with suppress(OSError):  # on a disk that turned read-only
                fresh.unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """The fields of `daemon.summary`."""
        report = self.snapshot()
        usage = [account["budget"] for account in report["accounts"].values()]
        rows = [(m["newest"], m) for m in report["modules"] if m["newest"] and not m["vanished"]]
        history = [each["history"] for each in report["modules"] if each["history"]]
        newest, oldest = min(rows, key=lambda row: row[0], default=(None, None))
        age = self.clock.now() - datetime.fromisoformat(newest) if newest else None
        return {
            "healthy": report["healthy"],
            "troubles": report["troubles"],
            "rows_written": report["store"]["written"],
            "rejected": report["store"]["rejected"],
            "requests_last_hour": sum(each["hour"] for each in usage),
            "requests_allowed": round(
                sum(each["per_day"] / 24 if each["per_day"] else each["target"] for each in usage)
            ),
            "spool_records": report["spool"]["records"],
            "coverage_documents": report["ledger"]["documents"],
            "requests_missing": sum(each["requests"] for each in history),
            "revised": report["store"]["revised"],
            "modules": len(report["modules"]),
            "oldest_module": oldest["name"] or oldest["id"] if oldest else None,
            "oldest_module_age_s": round(age.total_seconds()) if age else None,
            "logins": {name: each["login"]["state"] for name, each in report["accounts"].items()},
        }


def troubles(report: Mapping[str, Any]) -> list[str]:
    """What is wrong, worst first, each with its cure; empty when healthy."""
    found = []
    for name, account in report["accounts"].items():
        login = account["login"]
        why = "; ".join(part for part in (login["error"], login["cure"]) if part)
        if login["state"] in ("dead", "none"):
            cure = login["cure"] or f"log in: netatmo-ingestd login --account {name}"
            found.append(f"login of {name} is lost: {cure}")
        elif login["state"] in ("expired", "suspect"):
            text = f"login of {name} is {login['state']}; it is tried again by itself"
            found.append(f"{text} ({why})" if why else text)
        told = login["state"] in ("dead", "none", "expired", "suspect")
        found += _failing(name, account["failing"], without="login" if told else "")
        found += [f"{name}: no good answer of {what} lately" for what in account["late"]]
    store, spool = report["store"], report["spool"]
    if store["state"] == "down":
        found.append(f"store is down ({store['reason']}); {spool['records']} records wait")
    if spool["polling_paused"] or spool["fill"] >= 1:
        why = spool["error"] or "it is full"
        found.append(f"polling waits until there is room on the spool ({why})")
    if spool["damaged"]:
        found.append(f"a damaged spool was set aside as {spool['damaged']}")
    return found


def _failing(name: str, failing: Mapping[str, Any], *, without: str) -> list[str]:
    """One line for each endpoint, however many modules it fails for."""
    errors: dict[str, list[str]] = {}
    for what, each in failing.items():
        errors.setdefault(what.partition("|")[0], []).append(each["error"])
    errors.pop(without, None)
    return [
        f"{name}: {endpoint} fails ({told[0]})"
        + (f", and for {len(told) - 1} more modules" if len(told) > 1 else "")
        for endpoint, told in errors.items()
    ]


def hints(report: Mapping[str, Any]) -> list[str]:
    """What one should know, though all works: done another way, or slower."""
    found = [f"store: {what}: {text}" for what, text in report["store"]["warnings"].items()]
    found += _stretched(report["accounts"])
    if (report.get("pictures") or {}).get("failing"):
        found.append(f"pictures cannot be fetched ({report['pictures']['failing']}); tried again")
    for name, each in (report.get("webhook") or {"accounts": {}})["accounts"].items():
        if each["error"]:
            found.append(f"{name}: the webhook is not registered, polls go on ({each['error']})")
    for name, account in report["accounts"].items():
        found += [
            f"{name}: {product} was not granted ({', '.join(scopes)}); if it is yours, log in "
            f"again and accept all: netatmo-ingestd login --account {name}"
            for product, scopes in account.get("not_granted", {}).items()
        ]
        budget = account["budget"]
        if budget["error"]:
            found.append(f"{name}: the budget is not kept on disk ({budget['error']})")
        if budget.get("per_day") and budget["day"] >= budget["per_day"]:
            found.append(
                f"{name}: its {budget['per_day']} calls of 24 h are used up; the next one is made "
                "when the first of them is a day old"
            )
        if budget["paused_for"]:
            found.append(f"{name}: a quota is used up; paused for {budget['paused_for']:.0f} s")
    return found


def _stretched(accounts: Mapping[str, Any]) -> Iterator[str]:
    """One line for all accounts of an app: they are stretched alike."""
    alike: dict[float, list[str]] = {}
    for name, account in accounts.items():
        if account.get("stretch", 1.0) > 1:
            alike.setdefault(account["stretch"], []).append(name)
    for factor, names in alike.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"{names[0]}{more}: the cadences do not fit the budget; each is stretched {factor:g}×. "
            "Lengthen [poll] intervals, or give accounts an app of their own"
        )


def read(state_dir: Path) -> dict[str, Any] | None:
    """The last report with `running` and `age_s`; None when no daemon has written one.

    Raises IngestError when there is one that cannot be read.
    """
    path = state_dir / "status.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # Also a report from the future is stale: a running daemon replaces it within seconds.
        report["age_s"] = abs(time.time() - report["written"])
        known = report["version"] == __version__
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise IngestError(
            f"{path}: cannot be read ({error.strerror}); run this as the daemon's user"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise IngestError(
            f"{path}: is no report of ours; remove it, a running daemon writes it anew"
        ) from error
    if not known:
        raise IngestError(f"{path}: written by version {report['version']}; restart the daemon")
    fresh = not report.get("ended") and report["age_s"] < STALE_S
    report["running"] = fresh and is_running(state_dir)
    return report


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
