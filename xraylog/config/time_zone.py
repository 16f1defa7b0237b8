"""The time zone of the system, which counts if the config names none."""

from __future__ import annotations

import os
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from xraylog.config.model import Config, ConfigError

SYSTEM_ZONE = Path("/etc/localtime")
NAMELESS = "localtime"  # the system's zone if /etc/localtime is a file and not a link, which would give a name


def of_name(name: str) -> ZoneInfo:
    """Return the zone of this name, the system's for none. Raises what ZoneInfo raises, and OSError."""
    return ZoneInfo(name) if name and name != str(SYSTEM_ZONE) else of_system()


def of_system() -> ZoneInfo:
    """Return the system's time zone, with its name if /etc/localtime is a link that shows it; UTC if there is none."""
    if not SYSTEM_ZONE.exists():
        return ZoneInfo("UTC")
    target = os.path.realpath(SYSTEM_ZONE)
    if "/zoneinfo/" in target:
        return ZoneInfo(target.partition("/zoneinfo/")[2])
    with SYSTEM_ZONE.open("rb") as data:
        return ZoneInfo.from_file(data, key=NAMELESS)


def has_data() -> bool:
    """Return whether this machine has time zone data."""
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        return False
    return True


def refuse_nameless_zone(cfg: Config) -> None:
    """Raise ConfigError if the zone has no name by which a browser could know it."""
    if cfg.zone.key == NAMELESS:
        raise ConfigError(
            [f"{cfg.path}: [parser] timezone: expected the name of a zone, found none; {SYSTEM_ZONE} has none, either"]
        )
