"""Each feature is there from the version on that PostgreSQL's release notes name."""

from __future__ import annotations

import pytest

from xraylog.database.capabilities import Capabilities

FIRST = {  # the first major version
    "keys_on_partitioned": 11,
    "hash_of_64_bits": 11,
    "statements_have_timeouts": 11,
    "generated_columns": 12,
    "tcp_user_timeout": 12,
    "detach_concurrently": 14,
    "idle_session_timeout": 14,
    "copy_progress": 14,
    "compression_of_columns": 14,
    "date_bin": 14,
    "parameter_privileges": 15,
    "collation_versions": 15,
    "transaction_timeout": 17,
}


@pytest.mark.parametrize("feature", sorted(FIRST))
def test_a_feature_begins_with_its_version(feature: str) -> None:
    found = {major for major in range(10, 19) if getattr(Capabilities(major * 10000 + 3), feature)}
    assert found == set(range(FIRST[feature], 19))


def test_each_feature_is_tested() -> None:
    features = {name for name, value in vars(Capabilities).items() if isinstance(value, property)}
    assert features - set(Capabilities._fields) == set(FIRST)
