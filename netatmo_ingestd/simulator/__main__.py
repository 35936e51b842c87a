"""`python -m netatmo_ingestd.simulator`: the simulated cloud as a process of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from netatmo_ingestd.errors import IngestError
from netatmo_ingestd.simulator.household import PRODUCTS
from netatmo_ingestd.simulator.scenario import EXAMPLE, products
from netatmo_ingestd.simulator.server import Plan, serve

_EXAMPLES = f"""
examples:
  simulator                                    one weather station, a year of history
  simulator --coaches 1 --products energy,security,control
                                               a home with every product line
  simulator --stations 2 --scenario homes.toml --speed 600
                                               two homes as a file tells, ten minutes a second
  simulator --portal 1                         and Legrand's portal beside it

a scenario file; all but [[homes]] may be left out:
{EXAMPLE}"""


def main(arguments: list[str] | None = None) -> int:
    try:
        serve(Plan(**vars(_parser().parse_args(arguments))))
    except IngestError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    plain = Plan()
    parser = argparse.ArgumentParser(
        prog="simulator",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=plain.port, help="0: the system chooses")
    add("--speed", type=float, default=plain.speed, help="simulated seconds per second")
    add("--seed", type=int, default=plain.seed, help="same seed, same values")
    add("--stations", type=int, default=plain.stations, help="in total, 7 modules each")
    add("--coaches", type=int, default=plain.coaches, help="air quality monitors in total")
    add("--products", type=products, default=plain.products, help=f"of {', '.join(PRODUCTS)}: a,b")
    add("--scenario", type=Path, help="TOML file of what is in each home; see below")
    add("--contract", type=float, help="epoch at which peak and off-peak tariffs begin")
    add("--portal", type=int, default=plain.portal, help="users of Legrand's developer portal")
    add("--host", default=plain.host, help="a loopback address")
    add("--days", type=int, default=plain.days, help="days of history before the start")
    add("--timezones", type=_names, default=plain.timezones, help="IANA names, A,B,C: in turn")
    add("--origin", type=float, help="epoch at which both clocks agree (default: now)")
    add("--accounts", type=int, default=plain.accounts, help="users who share the stations")
    add("--apps", type=int, default=plain.apps, help="client ids, dealt to the accounts in turn")
    add("--shared", action="store_true", help="each account also sees a station of the next")
    add("--rotation", default=plain.rotation, help="strict, never or grace:SECONDS")
    add("--auto-consent", action="store_true", help="the consent page answers by itself")
    add("--password-grant", action="store_true", help="accept grant_type=password")
    add("--app-burst", action="store_true", help="hold the app to 2 calls per user in 10 s")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
