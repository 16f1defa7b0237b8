"""Every difference between versions of PostgreSQL that matters here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the session asks this module, too
    from xraylog.database.session import Connection


class Capabilities(NamedTuple):
    """The features of one server, by its version: 100023 is 10.23, 180004 is 18.4."""

    server_version: int

    @classmethod
    def of(cls, conn: Connection) -> Capabilities:
        """Return those of the server of a session, without a query."""
        return cls(conn.info.server_version)

    @property
    def keys_on_partitioned(self) -> bool:
        """Return whether a partitioned table has foreign keys and indexes. On 10 only its partitions have them."""
        return self.server_version >= 110000

    @property
    def hash_of_64_bits(self) -> bool:
        """Return whether the function hashtextextended exists."""
        return self.server_version >= 110000

    @property
    def statements_have_timeouts(self) -> bool:
        """Return whether each statement of a pipeline has a statement_timeout. Before, all up to a Sync have one."""
        return self.server_version >= 110000

    @property
    def tcp_user_timeout(self) -> bool:
        """Return whether there is the setting tcp_user_timeout."""
        return self.server_version >= 120000

    @property
    def generated_columns(self) -> bool:
        """Return whether columns can be GENERATED, and LIKE can include that."""
        return self.server_version >= 120000

    @property
    def detach_concurrently(self) -> bool:
        """Return whether there is DETACH PARTITION … CONCURRENTLY."""
        return self.server_version >= 140000

    @property
    def idle_session_timeout(self) -> bool:
        """Return whether there is the setting idle_session_timeout."""
        return self.server_version >= 140000

    @property
    def copy_progress(self) -> bool:
        """Return whether there is the view pg_stat_progress_copy."""
        return self.server_version >= 140000

    @property
    def compression_of_columns(self) -> bool:
        """Return whether a column can have a compression of its own, and LIKE can include that."""
        return self.server_version >= 140000

    @property
    def date_bin(self) -> bool:
        """Return whether the function date_bin exists."""
        return self.server_version >= 140000

    @property
    def collation_versions(self) -> bool:
        """Return whether a database knows the version of the collation that its indexes were built with."""
        return self.server_version >= 150000

    @property
    def parameter_privileges(self) -> bool:
        """Return whether a parameter can be granted. Before, only a superuser may set session_replication_role."""
        return self.server_version >= 150000

    @property
    def transaction_timeout(self) -> bool:
        """Return whether there is the setting transaction_timeout."""
        return self.server_version >= 170000
