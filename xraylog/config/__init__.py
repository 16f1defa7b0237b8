"""Read config.ini into a frozen Config, and check every value."""

from xraylog.config.files import refuse_for_output, refuse_ours
from xraylog.config.model import KEYS, OUR_POSTGRESQL_KEYS, Config, ConfigError
from xraylog.config.reader import libpq_keywords, read
from xraylog.config.time_zone import refuse_nameless_zone

__all__ = [
    "KEYS",
    "OUR_POSTGRESQL_KEYS",
    "Config",
    "ConfigError",
    "libpq_keywords",
    "read",
    "refuse_for_output",
    "refuse_nameless_zone",
    "refuse_ours",
]
