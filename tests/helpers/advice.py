"""List for each message which test follows its advice, in the situation that causes the message."""

# ruff: noqa: E501  # names of tests are long

from __future__ import annotations

from helpers.messages import Message

ADVICE = "integration/test_advice.py::"
FILES = "integration/ingest/test_file_faults.py::"
LOG_CHECKS = "integration/ingest/test_log_checks.py::"
STREAMS = "integration/telemetry/test_streams.py::"
UNIT = "unit/test_file_advice.py::"
OFFLINE = "integration/ingest/test_offline.py::test_a_database_that_refuses_us_is_for_the_operator_and_no_line_waits"
REFUSALS = "unit/test_refusals.py::test_a_text_has_its_cause_and_its_way_out"
STATES = "unit/test_refusals.py::test_a_state_counts_whatever_the_language_is"
CONFIG = "unit/test_config.py::"
SURROUNDINGS = "integration/test_surroundings.py::"
USERS = "integration/ingest/test_other_users.py::"
CLEARTEXT = (
    "integration/database/test_cleartext.py::"
    "test_the_password_is_not_sent_as_it_is_to_a_server_that_has_not_proven_who_it_is"
)
DAMAGED = "integration/ingest/test_outcome.py::test_a_buffer_that_was_moved_away_as_said_stands_in_nobodys_way"
BLOCKERS = "integration/migration/test_blockers.py::test_refused_before_the_first_change_with_the_way_out"
FAULTS = "integration/database/test_table_faults.py::"
TRIAL = "integration/commands/test_check_trial.py::"
CHECK = "integration/commands/test_check.py::"
DEAD_SESSION = "faults/test_hang.py::test_a_dead_session_that_does_not_end_is_named_by_each_run"
NOTHING = "nothing to do: "
PART = NOTHING + "it is a part of another message, which is here, too"
REST = NOTHING + "the text that is filled in has the advice"

# By file: the first words of a message, and `file::test`, or why the operator need not do anything.
TESTED: dict[str, dict[str, str]] = {
    "migrate_logs_to_partitioned.py": {
        "PostgreSQL is not available": "integration/migration/test_state.py::"
        "test_a_server_that_goes_away_ends_it_and_the_same_command_goes_on",
        "expected --yes": "integration/migration/test_revert.py::test_at_a_terminal_undo_asks",
        "interrupted; ": NOTHING + "the same command resumes",
        "not undone; ": NOTHING + "the operator did not agree",
        "logs cannot be migrated yet": BLOCKERS,
    },
    "parse_logs.py": {"{}: expected a log, found none": NOTHING + "the operator typed the pattern, and sees it"},
    "report_logs.py": {
        "--node: ": ADVICE + "test_a_list_of_the_nodes_that_there_are",
        "expected the package": "integration/report/test_report.py::"
        "test_without_its_packages_it_names_the_command_that_installs_them",
        "interrupted; ": NOTHING + "the operator, or the system, has ended it",
        "{}; no page was written; {}": REST,
        "PostgreSQL is not available": REST,
        "{}: expected to write the page": "integration/report/test_report.py::test_a_folder_that_may_not_be_entered_is_reported",
    },
    "xraylog/accesslog/archive.py": {
        "expected padding": PART,
        "{}: expected {}, found a larger one": "integration/ingest/test_discovery.py::"
        "test_a_dictionary_that_takes_too_much_memory_is_refused_with_the_command_that_loads_it",
        "-: expected to keep piped input": ADVICE + "test_a_folder_for_what_is_piped_in_that_is_full_is_named",
        "{}: expected the module": "integration/ingest/test_discovery.py::"
        "test_a_python_that_was_built_without_a_library_names_the_command_that_loads_it",
    },
    "xraylog/accesslog/discovery.py": {
        "[parser] logfile: expected xray's log as text": "integration/ingest/test_discovery.py::"
        "test_an_archive_in_the_place_of_the_configured_log_is_refused",
        "-: expected piped input": ADVICE + "test_standard_input_that_is_closed",
        "{}: expected xray's log, found an offline buffer": NOTHING + "the installation imports it",
        "{}: expected {}, found {}": "integration/ingest/test_discovery.py::"
        "test_zstd_is_refused_where_python_does_not_have_it_and_the_command_that_is_named_loads_it",
    },
    "xraylog/accesslog/installation.py": {
        "the host name is now": "integration/ingest/test_clones.py::test_another_name_of_the_host_is_not_another_node",
        "{}: expected our state file": "integration/ingest/test_restore.py::test_a_damaged_state_file_is_written_again",
        "{}: expected to replace it": PART,
        "{}; the next run tries again; {}": FILES + "test_the_file_is_named_and_the_command_mends_it",
    },
    "xraylog/accesslog/lockfile.py": {
        "a path that we may follow": USERS + "test_a_link_to_roots_file_is_not_followed",
        "{}: expected the folder of the offline buffer": FILES + "test_the_file_is_named_and_the_command_mends_it",
        "our lock file": USERS + "test_a_link_to_roots_file_is_not_followed",
        "{} is held by {}": ADVICE + "test_another_run_at_work_is_shown",
        "{}: expected our lock file": ADVICE + "test_a_folder_in_the_place_of_a_lock",
    },
    "xraylog/accesslog/logfile.py": {
        "{} is held by another process": ADVICE + "test_another_run_at_work_is_shown",
        "{} that can be read": FILES + "test_a_log_that_its_own_user_may_not_read",
        "{}: expected {} in a file, found a folder": FILES + "test_a_folder_as_log_names_the_files_in_it",
        "{}: expected {} in a file, found {}": FILES + "test_a_named_pipe_as_log_is_to_be_piped_in",
        "{}: expected {}, found {}, which is": FILES + "test_a_log_that_leads_to_a_stream_names_where_xray_prints",
    },
    "xraylog/accesslog/offline_buffer.py": {
        "a buffer that may be written": FILES + "test_the_file_is_named_and_the_command_mends_it",
        "to keep a torn batch there": USERS + "test_the_torn_file_may_not_be_a_link",
        "to make the buffer": FILES + "test_the_file_is_named_and_the_command_mends_it",
        "{}, before byte {}: expected one of our batches": DAMAGED,
        "{}, byte {}: expected a line, found a hole": DAMAGED,
        "{}, byte {}: expected one of our batches": DAMAGED,
        "{}: expected a buffer, found nothing": DAMAGED,
        "{}: expected it to end at byte": DAMAGED,
        "{}: expected our buffer, found a file": ADVICE + "test_another_file_in_the_place_of_the_buffer",
        "{}: expected our header in its first line, found another": DAMAGED,
        "{}: expected our header in its first line, found zeros": DAMAGED,
    },
    "xraylog/cli.py": {
        "found {} in a folder that was removed": PART,
    },
    "xraylog/commands/check.py": {
        "others use days": TRIAL + "test_views_and_keys_that_keep_days_from_being_dropped",
        "change [parser] logfile in": PART,
        "change [parser] timezone in": LOG_CHECKS + "test_another_zone_is_one_warning_a_day_and_a_check_finds_it",
        "{}: expected the folder of an access log": "integration/ingest/test_run.py::"
        "test_a_folder_of_the_log_that_does_not_exist_is_no_success",
        "{}: since {} its lines were dated": PART,
        "soon not enough": TRIAL + "test_ids_that_are_nearly_used_up",
        "rows of {} are in {}, the DEFAULT partition": TRIAL
        + "test_rows_of_a_day_to_come_in_a_default_partition_are_moved_as_schema_md_says",
        "from that day on each run": TRIAL
        + "test_rows_of_a_day_to_come_in_a_default_partition_are_moved_as_schema_md_says",
        "a line cannot be stored": TRIAL + "test_a_trigger_that_refuses_rows",
        "a line written at that very moment is lost": CHECK + "test_the_way_of_draining_is_that_of_the_file_system",
        "a run now would exit with status 3; {}": FILES + "test_the_file_is_named_and_the_command_mends_it",
        "a run now would exit with status 75; {}": ADVICE + "test_another_run_at_work_is_shown",
        "wait for xray's first line": CHECK + "test_a_missing_log_is_reported",
        "does not fit in every place": ADVICE + "test_tables_that_do_not_fit",
        "finish it: ": "integration/migration/test_state.py::"
        "test_as_long_as_it_is_unfinished_runs_stay_offline_by_themselves_and_say_why",
        "not enough for a run": TRIAL + "test_ids_that_are_used_up_or_there_already",
        "or drop those that nobody needs": "integration/ingest/test_too_many_days.py::"
        "test_the_small_days_can_be_set_aside_as_the_page_says",
        "the log may not be written": FILES + "test_an_attribute_of_the_log_is_named",
        "the next run continues; ": "integration/ingest/test_restore.py::test_an_archive_is_loaded_whole_into_a_new_database",
        "until then lines wait in the buffer": TRIAL + "test_a_trigger_that_drops_rows_of_a_table",
        "until then such rows are lost": TRIAL + "test_a_trigger_that_drops_rows_of_a_day",
        "drop what refuses it; until then": TRIAL + "test_a_line_that_a_check_of_yours_rejects",
        "as a superuser of PostgreSQL: {}": TRIAL + "test_a_policy_that_lets_rows_in_and_no_more",
        "as their owner, or a superuser of PostgreSQL: {}": TRIAL + "test_an_event_trigger_that_refuses_tables",
        "let {} do this": TRIAL + "test_a_column_of_yours_whose_default_the_role_may_not_take",
        "row-level security hides": TRIAL + "test_a_policy_that_lets_rows_in_and_no_more",
        "a run now would go offline": TRIAL + "test_a_session_that_keeps_a_lock_makes_a_run_go_offline",
        "its lines would be loaded and stay": FILES + "test_an_attribute_of_the_log_is_named",
        "cannot be replaced": PART,
        "cannot be written": PART,
        "{} cannot be replaced": FILES + "test_check_sees_an_attribute_of_our_files",
        "{} cannot be created": FILES + "test_the_file_is_named_and_the_command_mends_it",
        "{} cannot be written": FILES + "test_the_file_is_named_and_the_command_mends_it",
        "{} does not exist": CHECK + "test_a_missing_log_is_reported",
        "{} is held by {}": ADVICE + "test_another_run_at_work_is_shown",
        "{} keeps the lines of an open log": CHECK + "test_the_way_of_draining_is_that_of_the_file_system",
        "{}, keeps the locks of node": DEAD_SESSION,
        "the next run ends it": DEAD_SESSION,
    },
    "xraylog/commands/maintain.py": {
        "the counts do not add up": "integration/telemetry/test_stats.py::test_a_sum_that_does_not_add_up_is_an_error",
        "PostgreSQL is not available": PART,
        "what was not dropped": PART,
        "what was not moved": PART,
        "{}; partitions may be missing": "integration/ingest/test_nodes.py::"
        "test_make_partitions_fails_when_the_database_is_away",
    },
    "xraylog/commands/ownership.py": {"until then a run exits": USERS + "test_check_tells_what_a_run_would_refuse"},
    "xraylog/commands/rights.py": {
        "not enough for a run": CHECK
        + "test_rights_are_enough_when_a_run_can_store_a_new_day_and_else_the_advice_helps",
        "the schema may not be used": CHECK
        + "test_a_schema_that_a_role_may_not_use_is_opened_and_its_tables_stay_in_use",
        "no schema of the search_path is there": CHECK + "test_a_search_path_that_leads_nowhere_is_taken_back",
    },
    "xraylog/commands/server_limits.py": {
        "as a superuser, in database": TRIAL + "test_transactions_that_are_nearly_used_up",
        "each COMMIT waits": TRIAL + "test_a_standby_that_each_commit_waits_for",
        "start it, or": TRIAL + "test_a_standby_that_each_commit_waits_for",
        "statement_timeout is": TRIAL + "test_a_statement_timeout_that_ends_the_first_statement",
        "{} of 2,000,000,000 are used up": TRIAL + "test_transactions_that_are_nearly_used_up",
    },
    "xraylog/commands/trial.py": {
        "log_positions keeps what a run deletes": TRIAL + "test_a_trigger_that_keeps_positions_as_they_are",
        "rejected_lines keeps lines": TRIAL + "test_a_trigger_that_keeps_what_is_to_be_deleted",
        "a good line was left unparsed": TRIAL + "test_a_line_that_a_check_of_yours_rejects",
    },
    "xraylog/config/time_zone.py": {
        "{}: [parser] timezone: expected the name": CONFIG + "test_the_systems_zone_may_be_a_copy_without_a_name",
    },
    "xraylog/config/reader.py": dict.fromkeys(
        ("a NUL byte", "a value on one line", "an indented line", "the path of a file", "{}: {} {}: expected"),
        CONFIG + "test_every_complaint_is_reported_at_once_with_status_78_and_nothing_is_touched",
    )
    | dict.fromkeys(
        ("a whole number from 1 to 65535", "a whole number from 1 to {}"), CONFIG + "test_a_bad_number_is_a_complaint"
    )
    | {
        "{}: expected UTF-8": CONFIG + "test_a_config_that_is_not_utf_8_is_a_complaint",
        "{}: expected a config file": CONFIG + "test_a_missing_config_is_a_complaint",
        "{}: expected a file that can be read": CONFIG + "test_a_config_that_cannot_be_read_is_a_complaint",
        "a connection string": CONFIG + "test_a_connection_string_in_the_place_of_a_name_is_refused_and_not_shown",
        "a file FILE.prom": "integration/telemetry/test_prometheus.py::test_a_name_that_node_exporter_does_not_read_is_a_complaint",
        "a keyword of libpq": PART,
        "quotes round it": PART,
        "{}, and nothing tells where": PART,
        "a path, or a user who has a home": CONFIG + "test_a_home_folder_of_nobody_is_a_complaint",
        "a value (or the key service)": CONFIG + "test_a_database_to_connect_to_is_required",
        "an IANA zone name": CONFIG + "test_an_unknown_zone_is_a_complaint",
        "an unknown key": CONFIG + "test_an_unknown_key_is_a_complaint_with_the_likely_spelling",
        "at most 255 characters": CONFIG + "test_a_long_node_name_is_a_complaint",
        "mask_source": CONFIG + "test_a_choice_that_is_none_is_a_complaint",
        "none, or prefix lengths": CONFIG + "test_a_choice_that_is_none_is_a_complaint",
        "the value alone": SURROUNDINGS + "test_quotes_and_comments_are_no_part_of_a_value",
        "true or false": CONFIG + "test_a_choice_that_is_none_is_a_complaint",
        "{} or nothing": CONFIG + "test_a_choice_that_is_none_is_a_complaint",
        "{}: {}: expected one of the sections": CONFIG
        + "test_an_unknown_section_is_a_complaint_with_the_likely_spelling",
    },
    "xraylog/config/files.py": {
        "no folder {}": PART,
        "--logfile: expected xray's log": NOTHING + "the operator typed the name of our own file, and sees it",
        "--output: expected a file of its own": NOTHING + "the operator typed the name of our own file, and sees it",
        "--output: expected a file, or a place for one": "integration/report/test_report.py::"
        "test_a_page_that_cannot_be_put_there_is_reported_before_anything_is_asked",
        "{}: expected the path of a file": "integration/test_config.py::"
        "test_a_link_that_leads_to_itself_is_refused_on_the_command_line",
        "settings of {}": USERS + "test_settings_of_another_user_are_not_roots",
        "settings that others may write": USERS + "test_settings_that_others_may_write_are_not_roots",
    },
    "xraylog/database/collation.py": {
        "the indexes were built": TRIAL + "test_an_order_of_text_that_has_changed",
        "the index of": TRIAL + "test_an_order_of_text_of_one_column_that_has_changed",
    },
    "xraylog/database/dead_sessions.py": {
        "process {} of the server": PART,
        "the lock of node": "faults/test_hang.py::test_a_dead_session_of_another_role_is_named",
        "{}, is dead, keeps": "faults/test_hang.py::test_a_dead_session_that_does_not_end_is_named_by_each_run",
        "{}, kept the locks": NOTHING + "it has been ended",
    },
    "xraylog/database/optional.py": {
        "{}: expected a table, found a view": "integration/questions/test_networks.py::"
        "test_a_table_that_others_have_changed_is_named_with_what_mends_it",
        "{}: expected the columns": "integration/questions/test_networks.py::"
        "test_another_applications_table_is_left_alone",
        "{}: expected the right": "integration/questions/test_networks.py::"
        "test_a_role_that_may_not_gets_the_statements_to_run",
        "{}: expected the table": "integration/questions/test_networks.py::"
        "test_a_role_that_may_not_gets_the_statements_to_run",
    },
    "xraylog/ingest/dns.py": {
        "{}: the names of its DNS answers": "integration/ingest/test_dns_names.py::"
        "test_what_prevents_it_is_a_warning_with_the_statements_to_run",
    },
    "xraylog/database/networks.py": {
        "": "integration/questions/test_networks.py::test_a_table_that_others_have_changed_is_named_with_what_mends_it"
    },
    "xraylog/database/partitions.py": {
        "table {}: expected a partition": ADVICE + "test_a_table_with_the_name_of_a_partition",
        "{}: expected to create this partition": "integration/database/test_partitions.py::"
        "test_what_has_the_name_of_a_partition_is_renamed_as_the_error_says",
        "table {}: expected to create it": "integration/database/test_partitions.py::"
        "test_rows_of_a_new_day_in_a_default_partition_are_reported_and_schema_md_moves_them",
        "{}: expected this partition": "integration/ingest/test_nodes.py::test_the_owner_can_paste_what_makes_an_older_day",
    },
    "xraylog/database/positions.py": {
        "{}: expected no position": NOTHING + "the other run stores these lines",
        "log_positions does not take": TRIAL + "test_a_rule_that_keeps_a_position_where_it_is",
    },
    "xraylog/commands/cluster.py": dict.fromkeys(
        (
            "SELECT alter_distributed_table",
            "not every server lets",
            "server {} does not reach",
            "start it, or let them in",
            "{} shards are many",
            "on every server: GRANT SET",
        ),
        "integration/commands/test_check_citus.py::test_what_is_wrong_with_the_cluster_is_named",
    ),
    "xraylog/database/refusals.py": {
        "Citus's coordinator may not": "unit/test_citus.py::test_it_names_the_place_of_the_password_for_the_workers",
        "a worker of Citus is away": "unit/test_citus.py::test_a_worker_that_is_away_is_an_outage",
        "another object of the database has": TRIAL + "test_an_object_of_another_program_that_has_the_name_of_a_table",
        "if it is another program's, give": TRIAL + "test_an_object_of_another_program_that_has_the_name_of_a_table",
        "a statement was cancelled": TRIAL + "test_a_statement_timeout_that_ends_the_first_statement",
        "see: SHOW statement_timeout": TRIAL + "test_a_statement_timeout_that_ends_the_first_statement",
        "if it accepts only TLS": "unit/test_refusals.py::"
        "test_a_server_that_lets_in_with_tls_alone_is_one_of_the_causes",
        "the role {} has as many sessions": ADVICE + "test_a_role_or_a_database_that_may_have_no_more_sessions",
        "the database {} has as many sessions": ADVICE + "test_a_role_or_a_database_that_may_have_no_more_sessions",
        "the database {} lets no session begin": ADVICE + "test_a_database_that_lets_no_session_begin",
        "the server is a standby": "unit/test_refusals.py::test_a_standby_that_takes_no_sessions_is_not_waited_for",
        "change [postgresql] host: it must": "unit/test_refusals.py::"
        "test_a_standby_that_takes_no_sessions_is_not_waited_for",
        "idle_session_timeout is too short": STATES,
        "the server's pg_hba.conf has the method ident": REFUSALS,
        "write scram-sha-256 for it": REFUSALS,
        "another session keeps the lock": ADVICE + "test_a_lock_that_another_session_keeps",
        "change [postgresql] sslmode": ADVICE + "test_a_setting_that_the_server_does_not_offer",
        "the server has no TLS": ADVICE + "test_a_setting_that_the_server_does_not_offer",
        "set [postgresql] sslmode = verify-full": CLEARTEXT,
        "the server asks for the password as it is": CLEARTEXT,
        "{}require_auth = password": CLEARTEXT,
        "with its certificate in place": ADVICE + "test_a_setting_that_the_server_does_not_offer",
        "change [postgresql] password": SURROUNDINGS + "test_a_password_in_quotes_is_named_when_it_is_refused",
        "by that socket only": REFUSALS,
        "every session that the server has": REFUSALS,
        "nothing answers at": REFUSALS,
        "what to do: ": ADVICE + "test_a_server_that_is_down",
        "add above the others": REFUSALS,
        "see on that machine: sudo ss": "unit/test_logins.py::"
        "test_a_server_that_takes_the_connection_and_does_not_answer_is_away",
        "what listens on {} does not": "unit/test_logins.py::"
        "test_a_server_that_takes_the_connection_and_does_not_answer_is_away",
        "{}ALTER ROLE": ADVICE + "test_a_role_that_is_not_there",
        "if another one is meant, change [postgresql] dbname": ADVICE + "test_a_database_that_is_not_there",
        "if another one is meant, change [postgresql] host": ADVICE + "test_a_server_that_is_down",
        "if another one is meant, change [postgresql] user": REFUSALS,
        "if it is misspelt": ADVICE + "test_a_host_that_no_name_service_knows",
        "if it is slow": "faults/test_hang.py::test_a_process_of_the_server_that_is_frozen",
        "make room on it": STATES,
        "the host {} has no known address": ADVICE + "test_a_host_that_no_name_service_knows",
        "or run as that user": REFUSALS,
        "see who: ": ADVICE + "test_a_lock_that_another_session_keeps",
        "see: sudo journalctl": REFUSALS,
        "see: sudo systemctl": STATES,
        "set [postgresql] host": REFUSALS,
        "set [postgresql] password": ADVICE + "test_a_password_that_is_missing",
        "the password is not that": ADVICE + "test_a_password_that_is_another",
        "the role may not connect": ADVICE + "test_a_role_that_may_not_connect",
        "the role {} may not log in": ADVICE + "test_a_role_that_may_not_log_in",
        "the server asks for a password": ADVICE + "test_a_password_that_is_missing",
        "the server has no database": ADVICE + "test_a_database_that_is_not_there",
        "the server has no role": ADVICE + "test_a_role_that_is_not_there",
        "the server is down": ADVICE + "test_a_server_that_is_down",
        "the server is starting": REFUSALS,
        "the server keeps the connection": REFUSALS,
        "the server's disk is full": STATES,
        "the server's pg_hba.conf": REFUSALS,
        "the server, or its administrator": STATES,
        "the server, or the network": REFUSALS,
        "wait for it": REFUSALS,
        "what it waits for": REFUSALS,
        "who has them": REFUSALS,
    },
    "xraylog/database/column_types.py": {
        "{}.{}: expected the type": FAULTS + "test_a_column_that_has_become_another_thing",
    },
    "xraylog/database/lost_columns.py": {
        "{}.{}: expected a column": FAULTS + "test_a_column_that_was_renamed",
        "if it was renamed": FAULTS + "test_a_column_that_was_renamed",
        "restore {} from a backup": FAULTS + "test_a_column_that_was_dropped",
        "{}; if there is none": FAULTS + "test_a_column_that_was_dropped",
    },
    "xraylog/database/child_tables.py": {
        "{}: expected all of its rows": FAULTS + "test_a_table_that_inherits_names_or_positions",
    },
    "xraylog/database/lost_names.py": {
        "{}: expected the names": FAULTS + "test_names_that_were_dropped_are_not_replaced_by_others",
    },
    "xraylog/database/namesakes.py": {
        "{} is another application's": TRIAL + "test_users_of_another_application_stay_alone",
        "{}.{}: expected the search_path": TRIAL
        + "test_users_of_another_application_that_the_search_path_finds_first_get_no_names",
    },
    "xraylog/database/reject_reason.py": {
        "{}; what to do, as the owner of logs": "integration/ingest/test_nodes.py::"
        "test_without_the_column_for_reasons_rows_come_in_until_the_owner_has_pasted_it",
        "{}; the next run tries": NOTHING + "the next run tries",
        "logs.{}: expected the type text": "integration/database/test_reject_reason.py::"
        "test_a_column_of_that_name_and_another_type_holds_up_no_row_until_the_owner_has_pasted_what_mends_it",
    },
    "xraylog/database/schema.py": {
        "{}.id: expected a whole number": TRIAL + "test_ids_of_another_application_that_are_no_numbers",
        "logs.timestamp: expected": ADVICE + "test_tables_that_do_not_fit",
        "logs: expected PARTITION BY": ADVICE + "test_tables_that_do_not_fit",
        "logs: expected a table partitioned": "integration/ingest/test_outcome.py::test_the_command_can_be_pasted",
        "logs: expected a partitioned table": ADVICE + "test_tables_that_do_not_fit",
        "{}.id: expected a primary key": ADVICE + "test_tables_that_do_not_fit",
        "{}.{}: expected a column": ADVICE + "test_tables_that_do_not_fit",
        "{}.{}: expected a unique column": ADVICE + "test_tables_that_do_not_fit",
        "{}: expected a table, found another kind": ADVICE + "test_tables_that_do_not_fit",
    },
    "xraylog/database/session.py": {
        "[postgresql] replication": OFFLINE,
        "database {}: expected the encoding": ADVICE + "test_a_database_in_another_encoding",
        "the server is a standby": "integration/database/test_session.py::test_a_standby_is_called_by_its_name",
        "the server is read-only": TRIAL + "test_a_database_or_a_role_that_is_read_only",
    },
    "xraylog/database/sequences.py": {
        "ALTER TABLE {} ALTER id": FAULTS + "test_an_id_that_has_lost_its_default",
        "{}.id gets ids that are there": FAULTS + "test_a_default_that_gives_old_ids",
        "sequence {} gives ids": FAULTS + "test_a_sequence_of_rows_that_gives_old_ids_under_a_primary_key",
        "sequence {} of {}.{}": PART,
        "sequence {} is at": TRIAL + "test_ids_that_are_used_up_or_there_already",
        "{} is at": TRIAL + "test_ids_that_are_nearly_used_up",
        "{} is used up": TRIAL + "test_ids_that_are_used_up_or_there_already",
        "{}.id has no default: ": FAULTS + "test_an_id_that_has_lost_its_default",
        "{}.id has no default, and no sequence": FAULTS + "test_a_sequence_that_was_dropped",
    },
    "xraylog/database/table_faults.py": {
        "rows were dropped by trigger": FAULTS + "test_rows_that_a_trigger_drops_are_counted_with_its_name",
        "trigger {} on {} drops names": FAULTS + "test_a_trigger_that_drops_names_is_named",
        "{}.{} is not ours": FAULTS + "test_a_column_that_another_program_added",
        "{} refuses what a run writes": FAULTS + "test_what_refuses_unparsed_lines_or_positions_is_named",
    },
    "xraylog/password_file.py": {
        "set [postgresql] password, or make": ADVICE + "test_a_file_of_passwords_that_is_not_there_is_made",
        "the password is looked for in": ADVICE + "test_a_file_of_passwords_that_others_may_open",
    },
    "xraylog/file_advice.py": {
        "it is a link to": FILES + "test_a_lock_that_is_a_link_to_nowhere",
        "chattr +{} forbids": FILES + "test_an_attribute_of_the_log_is_named",
        "in the config: offline_file": UNIT + "test_a_folder_of_the_system_is_given_to_nobody",
        "it is larger than": UNIT + "test_limits_and_broken_disks_are_called_so",
        "the disk may be broken": UNIT + "test_limits_and_broken_disks_are_called_so",
        "it is mounted read-only": UNIT + "test_what_is_mounted_read_only_is_found",
        "make room": ADVICE + "test_a_folder_for_what_is_piped_in_that_is_full_is_named",
        "name a file in it": FILES + "test_a_folder_in_the_place_of_our_file_is_no_green_light",
        "too many files are open": UNIT + "test_too_many_open_files_name_the_limit_to_raise",
        "what to do: {}": REST,
        "{} is a file, and no folder": ADVICE + "test_a_file_in_the_place_of_a_folder",
    },
    "xraylog/hints.py": {
        "what to do, as their owner: GRANT SELECT": "integration/report/test_report.py::"
        "test_a_role_that_may_not_read_one_of_them_gets_the_grant_it_needs",
        "{}, or raise [report] statement_timeout": "integration/report/test_report.py::"
        "test_a_query_that_takes_too_long_ends",
        "[parser] offline_file": PART,
        "to run as {}, whose it is, let it have": USERS + "test_a_log_of_root_is_given_to_the_user_of_the_config",
        "change [postgresql]{} in": ADVICE + "test_a_setting_that_libpq_does_not_understand",
        "which GRANT it needs": ADVICE + "test_a_role_that_lacks_a_right",
        "it stays as it is": ADVICE + "test_another_file_in_the_place_of_the_buffer",
        "its lines stay in it": DAMAGED,
        "make room": "faults/test_survive.py::test_a_full_disk_under_the_buffer_leaves_the_log",
        "{}; make room": STREAMS + "test_the_disk_of_the_file_that_is_printed_to_is_named",
        "{}; print it where there is room": STREAMS + "test_a_full_disk_under_standard_output_is_one_line",
        "{}: {}; not all was printed": PART,
        "xray's log goes nowhere": NOTHING + "xray writes another log then",
        "name a file: [stats] output": "integration/telemetry/test_streams.py::"
        "test_standard_output_that_is_closed_is_named_and_is_no_other_file",
        "name another file": ADVICE + "test_another_file_in_the_place_of_the_buffer",
        "name the file in it": FILES + "test_a_folder_as_log_names_the_files_in_it",
        "pipe it in": FILES + "test_a_named_pipe_as_log_is_to_be_piped_in",
        "run as {}, whose it is": FILES + "test_a_log_of_another_user_names_the_user_to_run_as",
        "to finish it": "integration/migration/test_state.py::"
        "test_as_long_as_it_is_unfinished_runs_stay_offline_by_themselves_and_say_why",
        "to leave them there": FILES + "test_an_attribute_of_the_log_is_named",
        "to see what a migration does": "integration/ingest/test_outcome.py::test_the_command_can_be_pasted",
        "what it does": ADVICE + "test_another_run_at_work_is_shown",
        "what to do: cat LOG": ADVICE + "test_standard_input_that_is_closed",
        "if another one is meant": FILES + "test_the_file_is_named_and_the_command_mends_it",
        "what to do: {}": REST,
        "what to do: {} | {}": "integration/ingest/test_discovery.py::"
        "test_zstd_is_refused_where_python_does_not_have_it_and_the_command_that_is_named_loads_it",
        "why: docs/security.md": USERS + "test_a_link_to_roots_file_is_not_followed",
        "xray prints its log": FILES + "test_a_log_that_leads_to_a_stream_names_where_xray_prints",
    },
    "xraylog/ingest/buffer_import.py": {
        "{}, bytes {}: expected these lines": "integration/ingest/test_restore.py::"
        "test_an_archive_is_loaded_whole_into_a_new_database",
        "{}: this database lacks lines": NOTHING + "they are loaded",
    },
    "xraylog/ingest/confirmation.py": {
        "{}: expected no other run with this state": NOTHING + "the next run continues",
        "{}; lines that are still in the log": "integration/ingest/test_restore.py::test_a_restored_database_is_reported_once",
    },
    "xraylog/ingest/continuation.py": {
        "{}: it does not begin as before": "integration/ingest/test_continuation.py::test_a_dry_run_and_again_know_it_too",
        "{}: no part of it is known": NOTHING + "all of it is loaded",
    },
    "xraylog/ingest/log_checks.py": {
        "change [parser] logfile in": PART,
        "{}: expected the {} bytes that a run left": PART,
        "if there is a copy: let a run": "integration/ingest/test_offline_buffer.py::"
        "test_a_buffer_that_others_cut_is_an_error_once_and_a_copy_brings_the_lines",
        "{}: expected xray's log, found none since": LOG_CHECKS + "test_a_log_that_never_appears_is_one_warning_a_day",
    },
    "xraylog/ingest/new_users.py": {"{} new users in {} rows": NOTHING + "docs/log-format.md names the fields"},
    "xraylog/ingest/offline.py": {
        "{} ended in a torn batch": PART,
        "{}: its lines had left the log": "integration/ingest/test_offline_buffer.py::"
        "test_a_damaged_batch_that_looks_torn_is_kept_beside_the_buffer",
        "{}: if that was a crash": "integration/ingest/test_offline_buffer.py::"
        "test_a_batch_that_a_crash_tore_comes_again_from_the_log",
    },
    "xraylog/ingest/online.py": {
        "to accept such rows": ADVICE + "test_a_few_rows_that_a_check_refuses",
        "rows were refused": ADVICE + "test_a_few_rows_that_a_check_refuses",
        "; {} more bytes were seen": PART,
        "{} was emptied, replaced or renamed": "integration/ingest/test_outcome.py::"
        "test_a_renamed_log_names_the_run_that_loads_the_rest",
        "{}; their lines are in rejected_lines": "integration/ingest/test_too_many_days.py::"
        "test_with_room_a_replay_moves_them",
    },
    "xraylog/ingest/outcome.py": {
        "PostgreSQL is not available": REST,
        "change [parser] logfile": PART,
        "begin to read before a run": STREAMS + "test_a_reader_that_left_is_no_trouble_of_a_run",
        "new lines go to ": PART,
        "is {} its access log": PART,
        "another run is at work": ADVICE + "test_another_run_at_work_is_shown",
        "interrupted; ": NOTHING + "the next run resumes",
        "{} of {} lines {}": LOG_CHECKS + "test_a_log_from_days_ahead_is_not_taken_for_another_log",
        "not one of {} lines": "integration/ingest/test_outcome.py::"
        "test_one_line_says_what_happens_next_and_what_mends_it",
        "the counts do not add up": "integration/telemetry/test_stats.py::test_a_sum_that_does_not_add_up_is_an_error",
        "{}: expected the folder of an access log": "integration/ingest/test_run.py::"
        "test_a_folder_of_the_log_that_does_not_exist_is_no_success",
        "{}; committed rows are kept": REST,
        "{}; what is not stored stays where it is": NOTHING + "the next run continues",
        "{}; nothing was read": REST,
        "{}; what is not stored": REST,
    },
    "xraylog/ingest/source.py": {
        "{} is not writable": FILES + "test_an_attribute_of_the_log_is_named",
        "{}: expected a log, found none": NOTHING + "the operator typed the name, and sees it",
        "{}: {}; its lines up to byte": PART,
        "{}; such lines go to rejected_lines": "integration/ingest/test_forged_days.py::"
        "test_a_raised_setting_lets_them_in_and_replay_moves_what_was_rejected",
        "{}: its last line is incomplete": NOTHING + "a later copy has all of it",
        "{}; if there is a whole copy": "integration/ingest/test_discovery.py::"
        "test_of_an_archive_that_was_cut_the_lines_before_the_cut_are_stored",
    },
    "xraylog/loading/loader.py": {
        "SELECT usename": PART,
        "names vanish": "integration/loading/test_loader.py::test_what_deletes_names_forever_is_reported",
        "partitions vanish": NOTHING + "another run drops what has expired, and comes to an end",
    },
    "xraylog/loading/rejects.py": {
        "the tables do not fit": ADVICE + "test_rows_that_a_check_refuses",
        "{}: it is partitioned itself": FAULTS + "test_a_day_that_is_partitioned_itself_and_lacks_a_partition",
        "rejected_lines does not take": TRIAL + "test_a_trigger_that_drops_rows_of_a_table",
    },
    "xraylog/maintenance/replay.py": {
        "rejected_lines keeps lines": "integration/maintenance/test_replay.py::"
        "test_a_trigger_that_keeps_the_lines_is_named_and_nothing_is_moved",
        "rejected_lines.id: expected": "integration/maintenance/test_replay.py::"
        "test_a_hand_made_table_whose_lines_cannot_be_told_apart_is_refused",
    },
    "xraylog/maintenance/retention.py": {
        "{} keeps {} rows": "integration/maintenance/test_retention.py::"
        "test_what_keeps_old_rows_is_named_and_ends_no_run_late",
    },
    "xraylog/migration/backfill.py": {
        "{}: it cannot be copied": "integration/migration/test_blockers.py::"
        "test_a_right_that_is_taken_away_meanwhile_is_asked_for",
        "{}: its partition cannot be created": "integration/migration/test_backfill.py::"
        "test_a_name_that_another_program_takes_meanwhile_is_reported_and_can_be_freed",
        "{}: its rows cannot be copied": "integration/migration/test_backfill.py::"
        "test_a_value_that_is_changed_meanwhile_to_one_that_has_no_new_type_is_reported_and_can_be_fixed",
    },
    "xraylog/migration/revert.py": {
        "logs is the old table again": "integration/migration/test_revert.py::"
        "test_undo_that_cannot_drop_a_day_says_what_uses_it_and_goes_on_later",
    },
    "xraylog/migration/state.py": {
        "logs_old: expected the comment": "integration/migration/test_state.py::"
        "test_a_comment_that_was_cut_is_asked_for_and_the_migration_goes_on",
    },
    "xraylog/migration/swap.py": {"the new logs cannot be created": REST},
    "xraylog/migration/verify.py": {
        "logs and logs_old differ": "integration/migration/test_verify.py::test_a_difference_in_any_column_stops_everything",
        "sequence {}: expected one that can be moved past": "integration/migration/test_verify.py::"
        "test_a_sequence_that_was_made_to_end_meanwhile_is_named",
    },
    "xraylog/questions/output.py": {
        "expected to print the whole answer": NOTHING + "the next message says why, and what to do"
    },
    "xraylog/report/collect.py": {
        "expected logs among the schemas": ADVICE + "test_another_programs_logs_in_a_schema_that_the_page_does_not_see",
        "expected one of the nodes": ADVICE + "test_a_list_of_the_nodes_that_there_are",
        "expected the tables": "integration/report/test_report.py::test_a_table_that_is_missing_is_named",
    },
    "xraylog/required.py": {
        "expected Python": NOTHING + "this Python is not one of those that tests run on",
        "expected the package {}, found none": SURROUNDINGS
        + "test_a_python_without_the_packages_learns_how_to_get_them",
        "expected the package {}, found: ": SURROUNDINGS + "test_a_python_without_the_packages_learns_how_to_get_them",
        "run it with {}, after": SURROUNDINGS + "test_the_systems_python_gets_an_environment_of_its_own",
        "run it with": NOTHING + "this Python is not one of those that tests run on",
    },
    "xraylog/safe_path.py": {"a link that the user {} made": USERS + "test_a_link_to_roots_file_is_not_followed"},
    "xraylog/safe_open.py": {
        "a file that is removed whenever": NOTHING + "another user removes it at each of our tries",
        "a file of {} in a folder": USERS + "test_in_a_folder_like_tmp_only_files_of_this_user_are_ours",
        "{}; name another folder in the config": "unit/test_safe_open.py::"
        "test_in_a_folder_that_is_for_everybody_a_file_of_another_user_is_not_made_ours",
        "{}; if xray runs as {}": "unit/test_safe_open.py::test_a_file_of_another_user_where_others_may_write_is_not_ours",
        "a file of {} with {} names": USERS + "test_a_hard_link_to_roots_file_is_not_opened",
    },
    "xraylog/telemetry/prometheus.py": {
        "{}: expected to replace the metrics": FILES + "test_the_file_is_named_and_the_command_mends_it",
    },
    "xraylog/telemetry/run_log.py": {
        "{}: {}; the run continues": REST,
        "the log file {} cannot be written": "integration/telemetry/test_run_log.py::"
        "test_a_full_disk_is_one_line_and_costs_no_line_of_the_log",
        "{}: [logging] file: expected": FILES + "test_a_folder_in_the_place_of_our_file_is_no_green_light",
    },
    "xraylog/telemetry/stats.py": {
        "{}: expected the header": ADVICE + "test_a_table_of_statistics_with_another_header"
    },
    "xraylog/migration/blockers.py": {
        "": BLOCKERS,
        "{}: expected the right to read it": "integration/migration/test_blockers.py::"
        "test_another_role_cannot_continue_and_is_asked_for_the_owner",
    },
}


def beginnings(message: Message) -> list[str]:
    """Return the entry of the table with which a message begins; if several fit, the longest one."""
    found = sorted((words for words in TESTED.get(message.path, {}) if message.text.startswith(words)), key=len)
    return [words for words in found if not any(longer != words and longer.startswith(words) for longer in found)]
