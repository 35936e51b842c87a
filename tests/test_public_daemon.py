"""Public stations in a whole daemon: what the simulated map shows is in the store."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from netatmo_ingestd import daemon, spool
from netatmo_ingestd.process import Stop
from netatmo_ingestd.settings import HistorySettings, PublicArea, Settings
from netatmo_ingestd.simulator.server import Plan, Running, running
from netatmo_ingestd.tokenfile import TokenFile, token_folder
from tests.test_daemon import log_in, settings_for
from tests.wire import WireServer

pytestmark = pytest.mark.contract


@pytest.fixture(autouse=True)
def small_ballast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The room that each spool holds back is small here: writing it would take most of the time."""
    monkeypatch.setattr(spool, "BALLAST_BYTES", 1 << 20)


def mapped(folder: Path, cloud: Running, uri: str) -> Settings:
    """The weather of a home, and of what stands around it."""
    station = next(iter(cloud.cloud.world.stations.values()))
    longitude, latitude = station.place.location
    area = PublicArea(
        lat_ne=latitude + 0.1,
        lon_ne=longitude + 0.1,
        lat_sw=latitude - 0.1,
        lon_sw=longitude - 0.1,
    )
    settings = settings_for(folder, cloud, uri, history=HistorySettings(since="never"))
    account = settings.accounts[0].model_copy(
        update={"products": ("weather", "public"), "public_area": area}
    )
    return settings.model_copy(update={"accounts": (account,)})


async def shown(settings: Settings, cloud: Running) -> list[dict[str, object]]:
    """What the cloud answers to the same question."""
    token = TokenFile(token_folder(settings.state_dir, "home") / "token.json").load()
    area = settings.accounts[0].public_area
    assert token is not None
    assert area is not None
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(
            f"{cloud.url}/api/getpublicdata",
            params=area.model_dump(),
            headers={"Authorization": f"Bearer {token.access}"},
        )
    found: list[dict[str, object]] = answer.json()["body"]
    return found


async def test_the_map_around_a_home_is_stored(tmp_path: Path) -> None:
    """Each station is there with a row of each module; the home's own modules stay its own."""
    async with WireServer() as mongo, running(Plan(speed=1.0, days=1)) as cloud:
        settings = mapped(tmp_path, cloud, mongo.uri())
        await log_in(settings, cloud)
        own = {module.id for module in cloud.cloud.world.by_id.values()}

        assert await daemon.run_once(settings, Stop()) == []

        stations = await shown(settings, cloud)
        modules = mongo.documents["modules"]
        rows = mongo.documents["measurements"].values()
    told = {each["_id"] for each in stations} - own
    assert len(told) > 2
    assert {key for key, each in modules.items() if each["kind"] == "station"} == told
    assert {key for key, each in modules.items() if each["kind"] == "module"} == own
    assert list(mongo.documents["homes"]) == list({each["home_id"] for each in rows} - {""})
    foreign = [each for each in rows if each["module_id"] not in own]
    measured = {key for each in stations for key in each["measures"]}  # type: ignore[attr-defined]
    assert {each["module_id"] for each in foreign} == measured - own
    assert {each["module_type"] for each in foreign} == {"public"}
    assert all(each["home_id"] for each in rows if each["module_id"] in own)
    assert not any(key.partition("|")[0] in told for key in mongo.documents["coverage"])
