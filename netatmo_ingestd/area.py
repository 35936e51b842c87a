"""An area on the map as tiles, small enough that the cloud shows all of what stands in them."""

from __future__ import annotations

import math

TILE_DEGREES = 0.25


def tiles(lat_ne: float, lon_ne: float, lat_sw: float, lon_sw: float) -> tuple[str, ...]:
    """An area as equal tiles of at most TILE_DEGREES a side: "lat_sw,lon_sw,lat_ne,lon_ne" each.

    Degrees, north and east positive; the corners are those of `getpublicdata`.
    """
    rows, columns = (max(1, math.ceil(round(side / TILE_DEGREES, 6))) for side in
                     (lat_ne - lat_sw, lon_ne - lon_sw))  # fmt: skip
    lats = [lat_sw + (lat_ne - lat_sw) * step / rows for step in range(rows + 1)]
    lons = [lon_sw + (lon_ne - lon_sw) * step / columns for step in range(columns + 1)]
    return tuple(
        ",".join(
            f"{round(each, 5):.10g}" for each in (lats[row], lons[at], lats[row + 1], lons[at + 1])
        )
        for row in range(rows)
        for at in range(columns)
    )
