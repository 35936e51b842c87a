"""What each field of `homestatus` is: a number that moves, a state, a time, or a description.

Told by its name, whatever type of module it comes on (netatmo-api 3.6, 4.5).
"""

from __future__ import annotations

from collections.abc import Mapping

from netatmo_ingestd.sources.reading import Reader, number, text

ROOM_NUMBERS: dict[str, str] = {
    "therm_measured_temperature": "temperature",
    "heating_power_request": "heating_power_request",
    "humidity": "humidity",
}
VELUX_NUMBERS: dict[str, str] = {
    "temperature": "temperature",
    "co2": "co2",
    "lux": "illuminance",
    "air_quality": "air_quality",
}
MODULE_NUMBERS: Mapping[str, str] = {
    "power": "power",
    "battery_percent": "battery_percent",
    "battery_level": "battery_level",
    "rf_strength": "radio",
    "wifi_strength": "wifi",
    "outdoor_temperature": "outdoor_temperature",
}
TENTHS = {"temperature", "min_comfort_temperature", "max_comfort_temperature"}
ROOM_STATE: dict[str, str] = {
    "reachable": "reachable",
    "anticipating": "anticipating",
    "open_window": "open_window",
    **{
        f"{upstream}_setpoint_{what}": f"{ours}setpoint_{what}"
        for upstream, ours in (("therm", ""), ("cooling", "cooling_"), ("auto", "auto_"))
        for what in ("temperature", "mode")
    },
    "therm_setpoint_fp": "setpoint_pilot_wire",
}
VELUX_STATE: dict[str, str] = {
    name: name
    for name in (
        "min_comfort_temperature", "max_comfort_temperature", "max_comfort_co2",
        "min_comfort_humidity", "max_comfort_humidity", "algo_status",
    )
}  # fmt: skip
ROOM_TIMES: Mapping[str, str] = {
    f"{upstream}_setpoint_{end}_time": f"{ours}setpoint_{end}"
    for upstream, ours in (("therm", ""), ("cooling", "cooling_"), ("auto", "auto_"))
    for end in ("start", "end")
} | {"algo_schedule_start": "algo_schedule_start", "auto_close_ts": "auto_close"}
MODULE_STATE: Mapping[str, str] = {
    "boiler_status": "boiler",
    "cooler_status": "cooler",
    "boiler_valve_comfort_boost": "comfort_boost",
    "plug_connected_boiler": "boiler_connected",
    "current_position": "position",
    "target_position:step": "position_step",
    "target_position_step": "position_step",
    "rain_position": "rain_position",
    "secure_position": "secure_position",
    "detection_chamber_status": "chamber_status",
    **{
        name: name
        for name in (
            "reachable", "on", "brightness", "target_position", "fan_speed", "fan_mode",
            "fan_setpoint_from", "vertical_fan_swing_mode", "anticipating", "boiler_control",
            "dhw_control", "boiler_error", "monitoring", "sd_status", "alim_status", "alim_source",
            "locked", "homekit_status", "connection", "floodlight", "siren_status", "status",
            "timelapse_available", "network_lock", "websocket_connected", "max_peers_reached",
            "contactor_mode", "offload", "battery_state", "updating", "status_active",
            "status_tampered", "test_mode", "hush_mode", "smoke_detected", "battery_alarm_state",
            "wifi_status", "use_pincode", "is_raining", "busy", "locking", "secure", "calibrating",
            "pairing", "mode", "silent",
        )
    },
}  # fmt: skip
MODULE_TIMES: Mapping[str, str] = {"fan_end_time": "fan_end"}
MODULE_SEEN: Mapping[str, str] = {
    "last_seen": "last_seen",
    "last_activity": "last_activity",
    "last_message": "last_message",
    "last_status_store": "last_status_store",
    "last_wifi_connection": "last_wifi_connection",
}
MODULE_TOLD: Mapping[str, tuple[str, Reader]] = {
    # Words for what `radio` and `wifi` are numbers of: they waver too much for a state.
    "wifi_state": ("wifi_state", text),
    "rf_state": ("radio_state", text),
    "radio_id": ("radio_id", number),
}
MODULE_DESCRIBED: Mapping[str, tuple[str, Reader]] = {
    "firmware_revision": ("firmware", number),
    "firmware_name": ("firmware_name", text),
    "firmware_revision_netatmo": ("firmware_netatmo", text),
    "firmware_revision_thirdparty": ("firmware_third_party", text),
    "hardware_version": ("hardware_version", number),
    "velux_type": ("velux_type", text),
    "manufacturer": ("manufacturer", text),
}
WORDS: Mapping[str, frozenset[str]] = {
    "setpoint_mode": frozenset({"schedule", "manual", "max", "off", "away", "hg", "home"}),
    "setpoint_pilot_wire": frozenset(
        {"comfort", "comfort_1", "comfort_2", "away", "frost_guard", "stand_by"}
    ),
    "boiler_control": frozenset({"onoff", "opentherm", "detecting"}),
    "dhw_control": frozenset({"none", "instantaneous", "water_tank"}),
    "boiler_error": frozenset({
        "boiler_not_responding", "maintenance", "water_pressure", "boiler_flame", "air_pressure",
        "boiler_temperature",
    }),
    "monitoring": frozenset({"on", "off"}),
    "floodlight": frozenset({"on", "off", "auto"}),
    "battery_state": frozenset({"max", "full", "high", "medium", "low", "very_low"}),
    "status": frozenset({
        "no_news", "calibrating", "undefined", "closed", "open", "calibration_failed",
        "maintenance", "weak_signal", "no_sound", "sound", "warning", "playing_record_0",
        "playing_record_1", "playing_record_2", "playing_record_3", "on", "off", "disconnected",
    }),
}  # fmt: skip
"""Words of a state that are known; another one is kept too, and counted as drift."""
