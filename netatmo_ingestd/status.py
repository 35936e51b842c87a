"""Reads everyone, judges healthy or not, writes `status.json`.

Health is a file that goes stale: it works while MongoDB is down, and a hung daemon shows itself by
its age. No secret ever stands in it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from netatmo_ingestd import __version__
from netatmo_ingestd.clock import Clock
from netatmo_ingestd.intake import Memory
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.mongo import Store
from netatmo_ingestd.oauth import TokenManager
from netatmo_ingestd.poller import AccountPolls, Poller
from netatmo_ingestd.spool import Spool
from netatmo_ingestd.writer import Writer

EVERY_S = 5.0  # real time
STALE_S = 60.0
WATCHDOG_S = 120.0  # scheduler or spool without progress for so long: hung
SILENT_POLLS = 3


@dataclass(frozen=True)
class Reporter:
    """Everything that is looked at."""

    path: Path
    poller: Poller
    writer: Writer
    spool: Spool
    store: Store
    ledger: Ledger
    memory: Memory
    tokens: Mapping[str, TokenManager]
    clock: Clock
    store_name: str
    started: float

    def snapshot(self) -> dict[str, Any]:
        """The whole state, as `status --json` prints it."""
        counters = asdict(self.writer.counters)
        accounts = {name: self._account(account) for name, account in self.poller.accounts.items()}
        result: dict[str, Any] = {
            "version": __version__,
            "pid": os.getpid(),
            "written": time.time(),
            "started": self.started,
            "time": self.clock.now().isoformat(timespec="seconds"),
            "accounts": accounts,
            "modules": self._modules(),
            "spool": {
                "batches": self.spool.batches,
                "records": self.spool.records,
                "bytes": self.spool.bytes,
                "fill": round(self.spool.fill, 4),
                "oldest": self.spool.oldest,
                "polling_paused": self.poller.paused,
                "damaged": str(self.spool.damaged) if self.spool.damaged else None,
            },
            "store": {
                "name": self.store_name,
                **counters,
                "bulk_size": self.writer.bulk_size,
                "warnings": dict(self.store.warnings),
            },
            "ledger": {"loaded": self.ledger.loaded, "documents": len(self.ledger)},
            "drift": dict(self.memory.drift),
            "problems": dict(self.memory.problems),
            "stretch": round(self.poller.stretch, 2),
        }
        result["troubles"] = troubles(result)
        result["healthy"] = not result["troubles"]
        return result

    def _account(self, account: AccountPolls) -> dict[str, Any]:
        usage = account.budget.usage(account.name)
        return {
            "login": self.tokens[account.name].status(),
            "budget": asdict(usage),
            "failing": {name: asdict(each) for name, each in account.failing.items()},
            "refused": {name: str(until) for name, until in account.refused.items()},
            "last_good": {name: _iso(each) for name, each in account.last_good.items()},
            "late": sorted(
                endpoint.name
                for endpoint in account.endpoints()
                if endpoint.name in account.last_good
                and (self.clock.now() - account.last_good[endpoint.name])
                > SILENT_POLLS * self.poller.interval(endpoint)
            ),
        }

    def _modules(self) -> list[dict[str, Any]]:
        return [
            {
                "id": module_id,
                "account": known.entity.account,
                "name": known.entity.description.get("name", ""),
                "home": known.entity.description.get("home_name", ""),
                "type": known.entity.type,
                "reachable": known.entity.state.get("reachable"),
                "vanished": known.vanished,
                "newest": _iso(self.memory.newest.get(module_id)),
            }
            for of_endpoint in self.memory.known.values()
            for module_id, known in sorted(of_endpoint.items())
            if known.entity.kind == "module"
        ]

    def write(self, *, ended: bool = False) -> None:
        """Replace `status.json` in one step; a full disk costs the report, nothing else."""
        text = json.dumps(self.snapshot() | {"ended": ended}, default=str, indent=1)
        fresh = self.path.with_suffix(".json.next")
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(self.path)
        except OSError:
            fresh.unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """The fields of `daemon.summary`."""
        report = self.snapshot()
        usage = [account["budget"] for account in report["accounts"].values()]
        newest = [each["newest"] for each in report["modules"] if each["newest"]]
        return {
            "healthy": report["healthy"],
            "troubles": report["troubles"],
            "rows_written": report["store"]["written"],
            "rejected": report["store"]["rejected"],
            "requests_last_hour": sum(each["hour"] for each in usage),
            "requests_allowed": sum(each["target"] for each in usage),
            "spool_records": report["spool"]["records"],
            "coverage_documents": report["ledger"]["documents"],
            "modules": len(report["modules"]),
            "oldest_module": min(newest, default=None),
            "logins": {name: each["login"]["state"] for name, each in report["accounts"].items()},
        }


def troubles(report: Mapping[str, Any]) -> list[str]:
    """What is wrong, worst first, each with its cure; empty when healthy."""
    found = []
    for name, account in report["accounts"].items():
        login = account["login"]
        if login["state"] in ("dead", "none"):
            found.append(f"login of {name} is lost. Run: netatmo-ingestd login --account {name}")
        elif login["state"] in ("expired", "suspect"):
            found.append(f"login of {name} is {login['state']}; it is tried again by itself")
        found += [
            f"{name}: {what} fails ({each['error']})"
            for what, each in account["failing"].items()
            if what != "login"
        ]
        found += [f"{name}: no good answer of {what} lately" for what in account["late"]]
    store, spool = report["store"], report["spool"]
    if store["state"] == "down":
        found.append(f"store is down ({store['reason']}); {spool['records']} records wait")
    if spool["polling_paused"] or spool["fill"] >= 1:
        found.append("spool is full; polling waits until MongoDB takes what is there")
    if spool["damaged"]:
        found.append(f"a damaged spool was set aside as {spool['damaged']}")
    found += [f"store: {what}: {text}" for what, text in store["warnings"].items()]
    return found


def read(state_dir: Path) -> dict[str, Any] | None:
    """The last report with `running` and `age_s`; None when there is none."""
    path = state_dir / "status.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    report["age_s"] = max(0.0, time.time() - report["written"])
    report["running"] = not report.get("ended") and report["age_s"] < STALE_S
    return report


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
