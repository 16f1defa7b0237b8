-- Functions that answer the most frequent questions about `logs`. docs/questions.md has an example, the plan and the
-- time of each.
--
--     psql -f answers.sql
--
-- creates or replaces them; the tables must exist. They work on PostgreSQL 10 to 18.
--
-- Each is a single SELECT, which the planner inlines in place of the call: so partitions outside of the window are
-- pruned, and the caller needs rights on the tables. STRICT, SET, SECURITY DEFINER and VOLATILE would prevent inlining.
--
-- If Citus distributes `logs`, run answers_citus.sql afterwards.
--
-- What users did is counted in accepted connections: a rejected one can name a user, too, whose client is too old, and a
-- fork of xray a destination (docs/log-format.md), but nobody was let in. They are counted by the functions whose name
-- begins with `rejected`. Only `who_reached`, which shows the action, and `traffic_by_hour` have both.
--
-- A window includes `since`, but not `until`. A function names its parameters with its own name, `users_of.since`, so
-- that ask_logs.py can find them: it sends the same SELECT without needing the functions.


-- The address of a client. An IPv4-mapped IPv6 address, ::ffff:203.0.113.5, becomes the IPv4 address, because which of
-- them xray writes depends on its listener. Null for 0.0.0.0 and 127.0.0.1, which stand for a unix socket or a proxy.
CREATE OR REPLACE FUNCTION client_address(source inet)
RETURNS inet
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN source <<= '::ffff:0.0.0.0/104' OR source <<= '::ffff:127.0.0.0/104' THEN NULL
        WHEN source <<= '::ffff:0.0.0.0/96'
            THEN set_masklen('0.0.0.0'::inet + (source - '::ffff:0.0.0.0'::inet), masklen(source) - 96)
        WHEN source <<= '0.0.0.0/8' OR source <<= '127.0.0.0/8' OR source <<= '::/16' THEN NULL
        ELSE source
    END
$$;


-- The network of a client: /24 for IPv4, and /48 for IPv6, the largest that providers usually give to one customer. A
-- source that xray masked to a larger network is returned unchanged.
CREATE OR REPLACE FUNCTION client_network(source inet)
RETURNS cidr
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT network(set_masklen(source, least(masklen(source), CASE family(source) WHEN 4 THEN 24 ELSE 48 END)))
$$;


-- A destination as an address; null for a host name, even if it resembles an address: 10.example.com, 999.1.1.1. Only
-- text that is certainly valid is cast to inet. The first test of each branch is cheap, because most destinations are
-- names.
CREATE OR REPLACE FUNCTION endpoint_address(address text)
RETURNS inet
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN strpos(address, ':') = 0 THEN
            CASE WHEN address COLLATE "C" >= '0' AND address COLLATE "C" < ':'
                      AND address ~ '^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.|$)){4}$'
                      AND right(address, 1) <> '.'
                 THEN address::inet END
        WHEN lower(left(address, 7)) = '::ffff:' AND strpos(address, '.') > 0 THEN
            CASE WHEN substr(address, 8) ~ '^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.|$)){4}$'
                      AND right(address, 1) <> '.'
                 THEN substr(address, 8)::inet END
        WHEN length(address) - length(replace(address, ':', '')) <= 7
             AND address ~ ('^(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4})*)?'
                            '::(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4})*)?)$')
            THEN address::inet
    END
$$;


-- Whether a destination matches a target: a host name in upper or lower case, an address, a network (198.51.100.0/24),
-- or a pattern, in which * stands for any characters; *.telegram.org also matches telegram.org.
CREATE OR REPLACE FUNCTION endpoint_fits(address text, target text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN endpoint_address(split_part(target, '/', 1)) IS NOT NULL
            THEN endpoint_address(address) <<=
                 (host(endpoint_address(split_part(target, '/', 1)))
                  || substr(target, length(split_part(target, '/', 1)) + 1))::inet
        WHEN strpos(target, '*') > 0 THEN
            CASE WHEN target LIKE '*.%' THEN '.' ELSE '' END || rtrim(replace(lower(address), '::ffff:', ''), '.')
            LIKE replace(replace(replace(replace(
                     rtrim(replace(lower(target), '::ffff:', ''), '.'), '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
        ELSE lower(address) IN (lower(rtrim(target, '.')), lower(rtrim(target, '.')) || '.')
    END
$$;


-- How many addresses use each account. Addresses are grouped before networks are counted, so that few rows are sorted.
CREATE OR REPLACE FUNCTION addresses_of_users(
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    email       text,
    addresses   bigint,
    networks_24 bigint,
    networks_48 bigint,
    rows        bigint,
    first       timestamptz,
    last        timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text,
           count(a.address) AS addresses,
           count(DISTINCT client_network(a.address)) FILTER (WHERE family(a.address) = 4),
           count(DISTINCT client_network(a.address)) FILTER (WHERE family(a.address) = 6),
           sum(a.rows)::bigint AS rows,
           min(a.first),
           max(a.last)
    FROM (
        SELECT s.user_id, client_address(s.source_ip) AS address, sum(s.rows) AS rows, min(s.first) AS first,
               max(s.last) AS last
        FROM (
            SELECT l.user_id, l.source_ip, count(*) AS rows, min(l."timestamp") AS first, max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= addresses_of_users.since AND l."timestamp" < addresses_of_users.until
              AND l.action = 'accepted'
            GROUP BY l.user_id, l.source_ip
        ) s
        GROUP BY s.user_id, address
    ) a
    JOIN users u ON u.id = a.user_id
    GROUP BY u.email
    ORDER BY addresses DESC, rows DESC, u.email
$$;

-- Who shares an account. `simultaneous`: the largest number of networks (/24 or /48) of the user in one slot of ten
-- minutes; `at`: the first such slot; `slots`: how many slots have more than one network. IPv4 and IPv6 are counted
-- separately, because a client often has both. Ordered by 'simultaneous', or by 'addresses' or 'networks', which are
-- those of the whole window. OFFSET 0 makes the planner compute each address once instead of for each reference.
CREATE OR REPLACE FUNCTION sharing(
    by    text DEFAULT 'simultaneous',
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    email        text,
    simultaneous bigint,
    slots        bigint,
    at           timestamptz,
    addresses    bigint,
    networks     bigint,
    rows         bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, m.simultaneous, m.slots, m.at, w.addresses, w.networks, w.rows, w.first, w.last
    FROM (
        SELECT s.user_id, max(s.networks) AS simultaneous, count(*) FILTER (WHERE s.networks > 1) AS slots,
               to_timestamp((array_agg(s.slot ORDER BY s.networks DESC, s.slot))[1] * 600) AS at
        FROM (
            SELECT n.user_id, n.slot,
                   greatest(count(*) FILTER (WHERE family(n.network) = 4), count(*) FILTER (WHERE family(n.network) = 6))
                   AS networks
            FROM (
                SELECT a.user_id, a.slot, client_network(a.address) AS network
                FROM (
                    SELECT r.user_id, r.slot, client_address(r.source_ip) AS address
                    FROM (
                        SELECT l.user_id, floor(date_part('epoch', l."timestamp") / 600) AS slot, l.source_ip
                        FROM logs l
                        WHERE l."timestamp" >= sharing.since AND l."timestamp" < sharing.until
                          AND l.action = 'accepted'
                        UNION ALL
                        SELECT NULL, NULL, NULL FROM logs WHERE false
                    ) r
                    GROUP BY r.user_id, r.slot, r.source_ip
                    OFFSET 0
                ) a
                GROUP BY a.user_id, a.slot, network
            ) n
            GROUP BY n.user_id, n.slot
        ) s
        GROUP BY s.user_id
    ) m
    JOIN (
        SELECT a.user_id, count(DISTINCT a.address) AS addresses, count(DISTINCT client_network(a.address)) AS networks,
               sum(a.rows)::bigint AS rows, min(a.first) AS first, max(a.last) AS last
        FROM (
            SELECT s.user_id, client_address(s.source_ip) AS address, s.rows, s.first, s.last
            FROM (
                SELECT l.user_id, l.source_ip, count(*) AS rows, min(l."timestamp") AS first, max(l."timestamp") AS last
                FROM logs l
                WHERE l."timestamp" >= sharing.since AND l."timestamp" < sharing.until AND l.action = 'accepted'
                GROUP BY l.user_id, l.source_ip
            ) s
            OFFSET 0
        ) a
        GROUP BY a.user_id
    ) w ON w.user_id = m.user_id
    JOIN users u ON u.id = m.user_id
    ORDER BY CASE sharing.by WHEN 'addresses' THEN w.addresses WHEN 'networks' THEN w.networks END DESC NULLS LAST,
             m.simultaneous DESC, m.slots DESC, w.addresses DESC, w.rows DESC, u.email
$$;


-- From which networks a user connected. The network is null for lines without a source.
CREATE OR REPLACE FUNCTION networks_of(
    email text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    network   cidr,
    addresses bigint,
    rows      bigint,
    first     timestamptz,
    last      timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT client_network(a.address) AS network, count(a.address), sum(a.rows)::bigint AS rows, min(a.first),
           max(a.last)
    FROM (
        SELECT client_address(s.source_ip) AS address, sum(s.rows) AS rows, min(s.first) AS first, max(s.last) AS last
        FROM (
            SELECT l.source_ip, count(*) AS rows, min(l."timestamp") AS first, max(l."timestamp") AS last
            FROM logs l
            WHERE l.user_id = (SELECT u.id FROM users u WHERE u.email = networks_of.email)
              AND l."timestamp" >= networks_of.since AND l."timestamp" < networks_of.until
              AND l.action = 'accepted'
            GROUP BY l.source_ip
        ) s
        GROUP BY address
    ) a
    GROUP BY network
    ORDER BY rows DESC, network
$$;


-- To which destinations a user connected. Names are looked up one by one after grouping, because a join might read all
-- endpoints.
CREATE OR REPLACE FUNCTION destinations_of(
    email text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    destination text,
    port        integer,
    rows        bigint,
    first       timestamptz,
    last        timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (SELECT e.address::text FROM endpoints e WHERE e.id = d.destination_id) AS destination, d.destination_port,
           d.rows, d.first, d.last
    FROM (
        SELECT l.destination_id, l.destination_port, count(*) AS rows, min(l."timestamp") AS first,
               max(l."timestamp") AS last
        FROM logs l
        WHERE l.user_id = (SELECT u.id FROM users u WHERE u.email = destinations_of.email)
          AND l."timestamp" >= destinations_of.since AND l."timestamp" < destinations_of.until
          AND l.action = 'accepted'
          AND l.destination_id IS NOT NULL
        GROUP BY l.destination_id, l.destination_port
    ) d
    ORDER BY d.rows DESC, destination, d.destination_port
$$;

-- A summary of a user in the window: one row, with zeros if the user has no rows.
CREATE OR REPLACE FUNCTION total_of(
    email text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    rows         bigint,
    destinations bigint,
    addresses    bigint,
    networks     bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT count(*), count(DISTINCT a.destination_id), count(DISTINCT a.address), count(DISTINCT client_network(a.address)),
           min(a."timestamp"), max(a."timestamp")
    FROM (
        SELECT l."timestamp", l.destination_id, client_address(l.source_ip) AS address
        FROM logs l
        WHERE l.user_id = (SELECT u.id FROM users u WHERE u.email = total_of.email)
          AND l."timestamp" >= total_of.since AND l."timestamp" < total_of.until
          AND l.action = 'accepted'
        OFFSET 0
    ) a
$$;


-- On which days a user connected, as days of the session's TimeZone.
CREATE OR REPLACE FUNCTION days_of(
    email text,
    since timestamptz DEFAULT now() - interval '30 days',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    day          date,
    rows         bigint,
    destinations bigint,
    addresses    bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT date_trunc('day', l."timestamp")::date AS day, count(*), count(DISTINCT l.destination_id),
           count(DISTINCT client_address(l.source_ip)), min(l."timestamp"), max(l."timestamp")
    FROM logs l
    WHERE l.user_id = (SELECT u.id FROM users u WHERE u.email = days_of.email)
      AND l."timestamp" >= days_of.since AND l."timestamp" < days_of.until
      AND l.action = 'accepted'
    GROUP BY day
    ORDER BY day
$$;


-- To which ports a user connected.
CREATE OR REPLACE FUNCTION ports_of(
    email text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    port         integer,
    rows         bigint,
    destinations bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT l.destination_port AS port, count(*) AS rows, count(DISTINCT l.destination_id), min(l."timestamp"),
           max(l."timestamp")
    FROM logs l
    WHERE l.user_id = (SELECT u.id FROM users u WHERE u.email = ports_of.email)
      AND l."timestamp" >= ports_of.since AND l."timestamp" < ports_of.until
      AND l.action = 'accepted'
      AND l.destination_port IS NOT NULL
    GROUP BY port
    ORDER BY rows DESC, port
$$;


-- Which outbound tags a user's connections had. The tag is null for rows without one.
CREATE OR REPLACE FUNCTION outbound_tags_of(
    email text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    outbound     text,
    rows         bigint,
    destinations bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (SELECT t.name::text FROM tags t WHERE t.id = o.outbound_tag_id) AS outbound, o.rows, o.destinations,
           o.first, o.last
    FROM (
        SELECT l.outbound_tag_id, count(*) AS rows, count(DISTINCT l.destination_id) AS destinations,
               min(l."timestamp") AS first, max(l."timestamp") AS last
        FROM logs l
        WHERE l.user_id = (SELECT u.id FROM users u WHERE u.email = outbound_tags_of.email)
          AND l."timestamp" >= outbound_tags_of.since AND l."timestamp" < outbound_tags_of.until
          AND l.action = 'accepted'
        GROUP BY l.outbound_tag_id
    ) o
    ORDER BY o.rows DESC, outbound
$$;


-- From which addresses a user connected. The address is null for lines without a source.
CREATE OR REPLACE FUNCTION addresses_of(
    email text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    address inet,
    network cidr,
    rows    bigint,
    first   timestamptz,
    last    timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT a.address, client_network(a.address), a.rows, a.first, a.last
    FROM (
        SELECT client_address(s.source_ip) AS address, sum(s.rows)::bigint AS rows, min(s.first) AS first,
               max(s.last) AS last
        FROM (
            SELECT l.source_ip, count(*) AS rows, min(l."timestamp") AS first, max(l."timestamp") AS last
            FROM logs l
            WHERE l.user_id = (SELECT u.id FROM users u WHERE u.email = addresses_of.email)
              AND l."timestamp" >= addresses_of.since AND l."timestamp" < addresses_of.until
              AND l.action = 'accepted'
            GROUP BY l.source_ip
        ) s
        GROUP BY address
    ) a
    ORDER BY a.rows DESC, a.address
$$;


-- Rejected connections that name a user, from where, and why: a client that is too old.
CREATE OR REPLACE FUNCTION rejected_of(
    email text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    source_ip inet,
    reason    text,
    rows      bigint,
    first     timestamptz,
    last      timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.address AS source_ip, r.reason, r.rows, r.first, r.last
    FROM (
        SELECT client_address(s.source_ip) AS address, coalesce(nullif(s.why, ''), 'not recorded') AS reason,
               sum(s.rows)::bigint AS rows, min(s.first) AS first, max(s.last) AS last
        FROM (
            SELECT l.source_ip, l.reject_reason AS why, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l.user_id = (SELECT u.id FROM users u WHERE u.email = rejected_of.email)
              AND l."timestamp" >= rejected_of.since AND l."timestamp" < rejected_of.until
              AND l.action = 'rejected'
            GROUP BY l.source_ip, l.reject_reason
        ) s
        GROUP BY address, reason
    ) r
    ORDER BY r.rows DESC, r.address, r.reason
$$;


-- Who connected to a destination, given as it is in the log. The user is null for lines without an email.
CREATE OR REPLACE FUNCTION users_of(
    address text,
    since   timestamptz DEFAULT now() - interval '1 day',
    until   timestamptz DEFAULT now()
)
RETURNS TABLE (
    email text,
    rows  bigint,
    first timestamptz,
    last  timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, v.rows, v.first, v.last
    FROM (
        SELECT l.user_id, count(*) AS rows, min(l."timestamp") AS first, max(l."timestamp") AS last
        FROM logs l
        WHERE l.destination_id = (SELECT e.id FROM endpoints e WHERE e.address = users_of.address)
          AND l."timestamp" >= users_of.since AND l."timestamp" < users_of.until
          AND l.action = 'accepted'
        GROUP BY l.user_id
    ) v
    LEFT JOIN users u ON u.id = v.user_id
    ORDER BY v.rows DESC, u.email
$$;


-- Who connected to a host and port around a time: from `within` before it to `within` after it, both included.
CREATE OR REPLACE FUNCTION who_reached(
    address text,
    port    integer,
    at      timestamptz,
    within  interval DEFAULT '5 minutes'
)
RETURNS TABLE (
    "timestamp" timestamptz,
    email       text,
    source_ip   inet,
    source_port integer,
    action      text,
    node        text
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT l."timestamp", u.email::text, client_address(l.source_ip), l.source_port, l.action::text, n.name::text
    FROM logs l
    LEFT JOIN users u ON u.id = l.user_id
    LEFT JOIN nodes n ON n.id = l.node_id
    WHERE l.destination_id = (SELECT e.id FROM endpoints e WHERE e.address = who_reached.address)
      AND l.destination_port = who_reached.port
      AND l.action <> 'api'
      AND l."timestamp" >= who_reached.at - who_reached.within
      AND l."timestamp" <= who_reached.at + who_reached.within
    ORDER BY l."timestamp", l.id
$$;


-- Users that contact many destinations: scanners and infected machines contact many addresses without names, and
-- torrents many ports. The ports are those of SSH, Telnet, SMTP, SMB and RDP.
CREATE OR REPLACE FUNCTION users_that_fan_out(
    since timestamptz DEFAULT now() - interval '1 hour',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    email                  text,
    destinations           bigint,
    addresses              bigint,
    ports                  bigint,
    rows                   bigint,
    rows_22_23_25_445_3389 bigint,
    first                  timestamptz,
    last                   timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, d.destinations, d.addresses, p.ports, p.rows, p.scanned, p.first, p.last
    FROM (
        SELECT s.user_id, count(*) AS destinations, count(a.id) AS addresses
        FROM (
            SELECT l.user_id, l.destination_id
            FROM logs l
            WHERE l."timestamp" >= users_that_fan_out.since AND l."timestamp" < users_that_fan_out.until
              AND l.user_id IS NOT NULL AND l.destination_id IS NOT NULL AND l.action = 'accepted'
            GROUP BY l.user_id, l.destination_id
        ) s
        LEFT JOIN (SELECT e.id FROM endpoints e WHERE endpoint_address(e.address) IS NOT NULL) a
               ON a.id = s.destination_id
        GROUP BY s.user_id
    ) d
    JOIN (
        SELECT s.user_id, count(s.destination_port) AS ports, sum(s.rows)::bigint AS rows,
               coalesce(sum(s.rows) FILTER (WHERE s.destination_port IN (22, 23, 25, 445, 3389)), 0)::bigint AS scanned,
               min(s.first) AS first, max(s.last) AS last
        FROM (
            SELECT l.user_id, l.destination_port, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= users_that_fan_out.since AND l."timestamp" < users_that_fan_out.until
              AND l.user_id IS NOT NULL AND l.destination_id IS NOT NULL AND l.action = 'accepted'
            GROUP BY l.user_id, l.destination_port
        ) s
        GROUP BY s.user_id
    ) p ON p.user_id = d.user_id
    JOIN users u ON u.id = d.user_id
    ORDER BY d.addresses DESC, d.destinations DESC, u.email
$$;


-- Rows and users by port of the destination.
CREATE OR REPLACE FUNCTION rows_by_port(
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    port  integer,
    users bigint,
    rows  bigint,
    first timestamptz,
    last  timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT s.destination_port, count(s.user_id), sum(s.rows)::bigint AS rows, min(s.first), max(s.last)
    FROM (
        SELECT l.destination_port, l.user_id, count(*) AS rows, min(l."timestamp") AS first, max(l."timestamp") AS last
        FROM logs l
        WHERE l."timestamp" >= rows_by_port.since AND l."timestamp" < rows_by_port.until
          AND l.destination_port IS NOT NULL AND l.action = 'accepted'
        GROUP BY l.destination_port, l.user_id
    ) s
    GROUP BY s.destination_port
    ORDER BY rows DESC, s.destination_port
$$;


-- Who used some ports: '6881-6889,51413'.
CREATE OR REPLACE FUNCTION users_of_ports(
    ports text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    email        text,
    used_ports   bigint,
    destinations bigint,
    rows         bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, v.used_ports, v.destinations, v.rows, v.first, v.last
    FROM (
        SELECT s.user_id, count(DISTINCT s.destination_port) AS used_ports,
               count(DISTINCT s.destination_id) AS destinations, sum(s.rows)::bigint AS rows, min(s.first) AS first,
               max(s.last) AS last
        FROM (
            SELECT l.user_id, l.destination_id, l.destination_port, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= users_of_ports.since AND l."timestamp" < users_of_ports.until
              AND l.destination_port IN (
                      SELECT generate_series(substring(span FROM '[0-9]+')::integer,
                                             substring(span FROM '([0-9]+) *$')::integer)
                      FROM regexp_split_to_table(users_of_ports.ports, ',') AS span
                  )
              AND l.action = 'accepted'
            GROUP BY l.user_id, l.destination_id, l.destination_port
        ) s
        GROUP BY s.user_id
    ) v
    LEFT JOIN users u ON u.id = v.user_id
    ORDER BY v.rows DESC, u.email
$$;


-- Rows, users and destinations by outbound tag, which is null for lines without one. Two scans with few groups each
-- take less than half as long as one scan grouped by tag, user and destination (benchmarks/answers.py).
CREATE OR REPLACE FUNCTION rows_by_outbound(
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    outbound     text,
    users        bigint,
    destinations bigint,
    rows         bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT o.name::text, u.users, d.destinations, u.rows, u.first, u.last
    FROM (
        SELECT s.outbound_tag_id, count(s.user_id) AS users, sum(s.rows)::bigint AS rows, min(s.first) AS first,
               max(s.last) AS last
        FROM (
            SELECT l.outbound_tag_id, l.user_id, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= rows_by_outbound.since AND l."timestamp" < rows_by_outbound.until
              AND l.action = 'accepted'
            GROUP BY l.outbound_tag_id, l.user_id
        ) s
        GROUP BY s.outbound_tag_id
    ) u
    JOIN (
        SELECT s.outbound_tag_id, count(s.destination_id) AS destinations
        FROM (
            SELECT l.outbound_tag_id, l.destination_id
            FROM logs l
            WHERE l."timestamp" >= rows_by_outbound.since AND l."timestamp" < rows_by_outbound.until
              AND l.action = 'accepted'
            GROUP BY l.outbound_tag_id, l.destination_id
        ) s
        GROUP BY s.outbound_tag_id
    ) d ON d.outbound_tag_id IS NOT DISTINCT FROM u.outbound_tag_id
    LEFT JOIN tags o ON o.id = u.outbound_tag_id
    ORDER BY u.rows DESC, o.name
$$;


-- Users with connections by an outbound tag, for example who hits the block list. The user is null for lines without an
-- email.
CREATE OR REPLACE FUNCTION users_by_outbound(
    tag   text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    email        text,
    destinations bigint,
    rows         bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, v.destinations, v.rows, v.first, v.last
    FROM (
        SELECT s.user_id, count(s.destination_id) AS destinations, sum(s.rows)::bigint AS rows, min(s.first) AS first,
               max(s.last) AS last
        FROM (
            SELECT l.user_id, l.destination_id, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= users_by_outbound.since AND l."timestamp" < users_by_outbound.until
              AND l.outbound_tag_id = (SELECT o.id FROM tags o WHERE o.name = users_by_outbound.tag)
              AND l.action = 'accepted'
            GROUP BY l.user_id, l.destination_id
        ) s
        GROUP BY s.user_id
    ) v
    LEFT JOIN users u ON u.id = v.user_id
    ORDER BY v.rows DESC, u.email
$$;


-- Destinations of connections by an outbound tag, for example what the block list stops.
CREATE OR REPLACE FUNCTION destinations_by_outbound(
    tag   text,
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    destination text,
    port        integer,
    users       bigint,
    rows        bigint,
    first       timestamptz,
    last        timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (SELECT e.address::text FROM endpoints e WHERE e.id = v.destination_id) AS destination, v.destination_port,
           v.users, v.rows, v.first, v.last
    FROM (
        SELECT s.destination_id, s.destination_port, count(s.user_id) AS users, sum(s.rows)::bigint AS rows,
               min(s.first) AS first, max(s.last) AS last
        FROM (
            SELECT l.destination_id, l.destination_port, l.user_id, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= destinations_by_outbound.since AND l."timestamp" < destinations_by_outbound.until
              AND l.outbound_tag_id = (SELECT o.id FROM tags o WHERE o.name = destinations_by_outbound.tag)
              AND l.destination_id IS NOT NULL AND l.action = 'accepted'
            GROUP BY l.destination_id, l.destination_port, l.user_id
        ) s
        GROUP BY s.destination_id, s.destination_port
    ) v
    ORDER BY v.rows DESC, v.destination_id, v.destination_port
$$;


-- Destinations that nobody contacted before the window, for example those that many users suddenly contact. A subquery
-- searches the days before the window, and stops at the first row. OFFSET 0 limits the counting of users to the
-- destinations that are left.
CREATE OR REPLACE FUNCTION new_destinations(
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    destination text,
    users       bigint,
    rows        bigint,
    first       timestamptz,
    last        timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (SELECT e.address::text FROM endpoints e WHERE e.id = d.destination_id) AS destination, v.users, v.rows,
           v.first, v.last
    FROM (
        SELECT w.destination_id
        FROM (
            SELECT l.destination_id
            FROM logs l
            WHERE l."timestamp" >= new_destinations.since AND l."timestamp" < new_destinations.until
              AND l.destination_id IS NOT NULL AND l.action = 'accepted'
            GROUP BY l.destination_id
        ) w
        LEFT JOIN LATERAL (
            SELECT true AS is_known
            FROM logs l
            WHERE l.destination_id = w.destination_id AND l."timestamp" < new_destinations.since
            LIMIT 1
        ) before ON true
        WHERE before.is_known IS NULL
        OFFSET 0
    ) d
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT l.user_id) AS users, count(*) AS rows, min(l."timestamp") AS first,
               max(l."timestamp") AS last
        FROM logs l
        WHERE l.destination_id = d.destination_id
          AND l."timestamp" >= new_destinations.since AND l."timestamp" < new_destinations.until
          AND l.action = 'accepted'
    ) v
    ORDER BY v.users DESC, v.rows DESC, d.destination_id
$$;


-- When each user was last let in, and from where; null for a user not seen since then. From PostgreSQL 12 on, the
-- subquery searches the days backwards from the last one, and stops at the first row.
CREATE OR REPLACE FUNCTION last_seen(since timestamptz DEFAULT now() - interval '30 days')
RETURNS TABLE (
    email     text,
    last      timestamptz,
    source_ip inet
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, seen."timestamp" AS last, client_address(seen.source_ip)
    FROM users u
    LEFT JOIN LATERAL (
        SELECT l."timestamp", l.source_ip
        FROM logs l
        WHERE l.user_id = u.id AND l."timestamp" >= last_seen.since AND l.action = 'accepted'
        ORDER BY l."timestamp" DESC
        LIMIT 1
    ) seen ON true
    ORDER BY last DESC NULLS LAST, email
$$;

-- When each user of a list was last seen, including users that the database does not know.
CREATE OR REPLACE FUNCTION last_seen_of(
    emails text[],
    since  timestamptz DEFAULT now() - interval '30 days'
)
RETURNS TABLE (
    email     text,
    last      timestamptz,
    source_ip inet
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT n.email, seen."timestamp" AS last, client_address(seen.source_ip)
    FROM unnest(last_seen_of.emails) AS n (email)
    LEFT JOIN users u ON u.email = n.email
    LEFT JOIN LATERAL (
        SELECT l."timestamp", l.source_ip
        FROM logs l
        WHERE l.user_id = u.id AND l."timestamp" >= last_seen_of.since AND l.action = 'accepted'
        ORDER BY l."timestamp" DESC
        LIMIT 1
    ) seen ON true
    ORDER BY last DESC NULLS LAST, n.email
$$;

-- Who is online: users who were let in during the window, from where, and since when. `online_since`: when the user's
-- activity began, which no pause of 30 minutes interrupts; this is looked for up to six hours before the window.
CREATE OR REPLACE FUNCTION online(
    since timestamptz DEFAULT now() - interval '5 minutes',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    email        text,
    online_since timestamptz,
    last         timestamptz,
    rows         bigint,
    addresses    inet[],
    networks     cidr[]
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, t.online_since, t.last, c.rows, c.addresses, c.networks
    FROM (
        SELECT a.user_id, sum(a.rows)::bigint AS rows,
               array_agg(DISTINCT a.address) FILTER (WHERE a.address IS NOT NULL) AS addresses,
               array_agg(DISTINCT client_network(a.address)) FILTER (WHERE a.address IS NOT NULL) AS networks
        FROM (
            SELECT s.user_id, client_address(s.source_ip) AS address, s.rows
            FROM (
                SELECT l.user_id, l.source_ip, count(*) AS rows
                FROM logs l
                WHERE l."timestamp" >= online.since AND l."timestamp" < online.until AND l.action = 'accepted'
                GROUP BY l.user_id, l.source_ip
            ) s
            OFFSET 0
        ) a
        GROUP BY a.user_id
    ) c
    JOIN users u ON u.id = c.user_id
    CROSS JOIN LATERAL (
        SELECT max(p."timestamp") FILTER (WHERE p.pause IS NULL OR p.pause >= interval '30 minutes') AS online_since,
               max(p."timestamp") AS last
        FROM (
            SELECT l."timestamp", l."timestamp" - lag(l."timestamp") OVER (ORDER BY l."timestamp") AS pause
            FROM logs l
            WHERE l.user_id = c.user_id
              AND l."timestamp" >= online.since - interval '6 hours' AND l."timestamp" < online.until
              AND l.action = 'accepted'
        ) p
    ) t
    ORDER BY t.online_since, u.email
$$;


-- How many users there were by '5m', 'hour' or 'day', in the session's TimeZone; and the largest number of them at
-- once, which means in five minutes. A period without users is left out. Rows are grouped by hour first; bit 0 of
-- `parts` says whether the user has rows in the hour's first five minutes, and bit 11 the same of the last ones.
CREATE OR REPLACE FUNCTION users_over_time(
    by    text DEFAULT 'hour',
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    begin   timestamptz,
    users   bigint,
    at_once bigint
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH h AS (
        SELECT r.hour, r.user_id, bit_or(1 << r.part) AS parts
        FROM (
            SELECT date_trunc('hour', l."timestamp") AS hour, l.user_id,
                   date_part('minute', l."timestamp")::integer / 5 AS part
            FROM logs l
            WHERE l."timestamp" >= users_over_time.since AND l."timestamp" < users_over_time.until
              AND l.user_id IS NOT NULL AND l.action = 'accepted'
            UNION ALL
            SELECT NULL, NULL, NULL FROM logs WHERE false
        ) r
        GROUP BY r.hour, r.user_id
    ), p AS (
        SELECT c.hour, c.hour + n * interval '5 minutes' AS begin, c.users[n + 1] AS users
        FROM (
            SELECT h.hour, ARRAY[
                       count(nullif(h.parts & 1, 0)), count(nullif(h.parts & 2, 0)), count(nullif(h.parts & 4, 0)),
                       count(nullif(h.parts & 8, 0)), count(nullif(h.parts & 16, 0)), count(nullif(h.parts & 32, 0)),
                       count(nullif(h.parts & 64, 0)), count(nullif(h.parts & 128, 0)),
                       count(nullif(h.parts & 256, 0)), count(nullif(h.parts & 512, 0)),
                       count(nullif(h.parts & 1024, 0)), count(nullif(h.parts & 2048, 0))
                   ] AS users
            FROM h
            GROUP BY h.hour
        ) c
        CROSS JOIN generate_series(0, 11) AS n
    )
    SELECT p.begin, p.users, p.users AS at_once
    FROM p
    WHERE users_over_time.by = '5m' AND p.users > 0
    UNION ALL
    SELECT m.begin, d.users, m.at_once
    FROM (
        SELECT date_trunc(users_over_time.by, p.hour) AS begin, max(p.users) AS at_once FROM p GROUP BY 1
    ) m
    JOIN (
        SELECT g.begin, count(*) AS users
        FROM (SELECT date_trunc(users_over_time.by, h.hour) AS begin, h.user_id FROM h GROUP BY 1, 2) g
        GROUP BY g.begin
    ) d ON d.begin = m.begin
    WHERE users_over_time.by <> '5m'
    ORDER BY begin
$$;


-- Rows by hour, in the session's TimeZone. An hour without rows is left out. The UNION ALL adds no row, but without it
-- the planner expects as many hours as rows, and sorts all rows instead of hashing them; and without its FROM logs, the
-- plan would not be parallel.
DROP FUNCTION IF EXISTS traffic_by_hour(timestamptz, timestamptz);  -- earlier versions returned another count, too
CREATE OR REPLACE FUNCTION traffic_by_hour(
    since timestamptz DEFAULT date_trunc('hour', now()) - interval '11 hours',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    hour timestamptz,
    rows bigint
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT h.hour, count(*)
    FROM (
        SELECT date_trunc('hour', l."timestamp") AS hour
        FROM logs l
        WHERE l."timestamp" >= traffic_by_hour.since AND l."timestamp" < traffic_by_hour.until
          AND l.action <> 'api'
        UNION ALL
        SELECT NULL FROM logs WHERE false
    ) h
    GROUP BY h.hour
    ORDER BY h.hour
$$;

-- Rows, users and addresses by hour or day, in the session's TimeZone. Only accepted connections count, so neither
-- rejected ones nor calls of xray's own API. A period without rows is left out. For the UNION ALL see
-- traffic_by_hour.
CREATE OR REPLACE FUNCTION traffic(
    by    text DEFAULT 'hour',
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    begin     timestamptz,
    rows      bigint,
    users     bigint,
    addresses bigint
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT g.begin, sum(g.rows)::bigint, count(DISTINCT g.user_id), count(DISTINCT client_address(g.source_ip))
    FROM (
        SELECT r.begin, r.user_id, r.source_ip, count(*) AS rows
        FROM (
            SELECT date_trunc(traffic.by, l."timestamp") AS begin, l.user_id, l.source_ip
            FROM logs l
            WHERE l.action = 'accepted' AND l."timestamp" >= traffic.since AND l."timestamp" < traffic.until
            UNION ALL
            SELECT NULL, NULL, NULL FROM logs WHERE false
        ) r
        GROUP BY r.begin, r.user_id, r.source_ip
    ) g
    GROUP BY g.begin
    ORDER BY g.begin
$$;


-- Rows, users and addresses by time, and by 'node', 'outbound' or 'inbound' tag. The name is null for rows without one.
CREATE OR REPLACE FUNCTION traffic_per(
    per   text,
    by    text DEFAULT 'hour',
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    begin     timestamptz,
    name      text,
    rows      bigint,
    users     bigint,
    addresses bigint
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.begin,
           CASE traffic_per.per
               WHEN 'node' THEN (SELECT n.name::text FROM nodes n WHERE n.id = t.name_id)
               ELSE (SELECT n.name::text FROM tags n WHERE n.id = t.name_id)
           END AS name,
           t.rows, t.users, t.addresses
    FROM (
        SELECT g.begin, g.name_id, sum(g.rows)::bigint AS rows, count(DISTINCT g.user_id) AS users,
               count(DISTINCT client_address(g.source_ip)) AS addresses
        FROM (
            SELECT r.begin, r.name_id, r.user_id, r.source_ip, count(*) AS rows
            FROM (
                SELECT date_trunc(traffic_per.by, l."timestamp") AS begin,
                       CASE traffic_per.per
                           WHEN 'node' THEN l.node_id
                           WHEN 'outbound' THEN l.outbound_tag_id
                           WHEN 'inbound' THEN l.inbound_tag_id
                       END AS name_id,
                       l.user_id, l.source_ip
                FROM logs l
                WHERE l.action = 'accepted' AND l."timestamp" >= traffic_per.since AND l."timestamp" < traffic_per.until
                UNION ALL
                SELECT NULL, NULL, NULL, NULL FROM logs WHERE false
            ) r
            GROUP BY r.begin, r.name_id, r.user_id, r.source_ip
        ) g
        GROUP BY g.begin, g.name_id
    ) t
    ORDER BY t.begin, t.rows DESC, name
$$;


-- Sources of rejected connections, and the reasons: scanners, probes, clients whose account was removed. An older
-- `logs` has no column reject_reason until the next run adds it; until then ask_logs.py uses null in its place.
DROP FUNCTION IF EXISTS rejected_sources(timestamptz, timestamptz);  -- earlier versions returned no reason
CREATE OR REPLACE FUNCTION rejected_sources(
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    source_ip inet,
    network   cidr,
    reason    text,
    rows      bigint,
    first     timestamptz,
    last      timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.address AS source_ip, client_network(r.address) AS network, r.reason, r.rows, r.first, r.last
    FROM (
        SELECT client_address(s.source_ip) AS address,
               coalesce(nullif(s.why, ''), 'not recorded') AS reason, sum(s.rows)::bigint AS rows,
               min(s.first) AS first, max(s.last) AS last
        FROM (
            SELECT l.source_ip, l.reject_reason AS why, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l.action = 'rejected' AND l."timestamp" >= rejected_sources.since
                  AND l."timestamp" < rejected_sources.until
            GROUP BY l.source_ip, l.reject_reason
        ) s
        GROUP BY address, reason
    ) r
    ORDER BY r.rows DESC, r.address, r.reason
$$;


-- Rejected connections by network, to find scans from many addresses of one network.
CREATE OR REPLACE FUNCTION rejected_networks(
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    network cidr,
    reason  text,
    rows    bigint,
    sources bigint,
    first   timestamptz,
    last    timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.network, r.reason, sum(r.rows)::bigint AS rows, count(r.source_ip) AS sources, min(r.first), max(r.last)
    FROM rejected_sources(rejected_networks.since, rejected_networks.until) r
    GROUP BY r.network, r.reason
    ORDER BY rows DESC, r.network, r.reason
$$;


-- Rejected connections by reason.
CREATE OR REPLACE FUNCTION rejected_reasons(
    since timestamptz DEFAULT now() - interval '1 day',
    until timestamptz DEFAULT now()
)
RETURNS TABLE (
    reason   text,
    rows     bigint,
    sources  bigint,
    networks bigint,
    first    timestamptz,
    last     timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.reason, sum(r.rows)::bigint AS rows, count(r.source_ip) AS sources,
           count(DISTINCT r.network) AS networks, min(r.first), max(r.last)
    FROM rejected_sources(rejected_reasons.since, rejected_reasons.until) r
    GROUP BY r.reason
    ORDER BY rows DESC, r.reason
$$;


-- Who connects from an address or a network: which user is 203.0.113.7? The user is null for lines without an email.
-- Rows are compared with both forms of an IPv4 address (`client_address`) before they are grouped.
CREATE OR REPLACE FUNCTION users_from(
    client inet,
    since  timestamptz DEFAULT now() - interval '1 day',
    until  timestamptz DEFAULT now()
)
RETURNS TABLE (
    email     text,
    addresses bigint,
    rows      bigint,
    first     timestamptz,
    last      timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, count(DISTINCT a.address) AS addresses, sum(a.rows)::bigint AS rows, min(a.first), max(a.last)
    FROM (
        SELECT s.user_id, client_address(s.source_ip) AS address, s.rows, s.first, s.last
        FROM (
            SELECT l.user_id, l.source_ip, count(*) AS rows, min(l."timestamp") AS first, max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= users_from.since AND l."timestamp" < users_from.until
              AND l.action = 'accepted'
              AND (l.source_ip <<= client_address(users_from.client)
                   OR l.source_ip <<= CASE family(client_address(users_from.client)) WHEN 4 THEN
                          set_masklen('::ffff:0.0.0.0'::inet
                                      + (set_masklen(client_address(users_from.client), 32) - '0.0.0.0'::inet),
                                      96 + masklen(client_address(users_from.client)))
                      END)
            GROUP BY l.user_id, l.source_ip
        ) s
        OFFSET 0
    ) a
    LEFT JOIN users u ON u.id = a.user_id
    WHERE a.address <<= client_address(users_from.client)
    GROUP BY a.user_id, u.email
    ORDER BY rows DESC, u.email
$$;


-- Rejected connections from an address or a network, and the reasons.
CREATE OR REPLACE FUNCTION rejected_from(
    client inet,
    since  timestamptz DEFAULT now() - interval '1 day',
    until  timestamptz DEFAULT now()
)
RETURNS TABLE (
    source_ip inet,
    reason    text,
    rows      bigint,
    first     timestamptz,
    last      timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.source_ip, r.reason, r.rows, r.first, r.last
    FROM rejected_sources(rejected_from.since, rejected_from.until) r
    WHERE r.source_ip <<= client_address(rejected_from.client)
    ORDER BY r.rows DESC, r.source_ip, r.reason
$$;


-- Who connected to a destination: a host, an address, a network or a pattern (`endpoint_fits`), and a port (null: any).
-- `also`: further addresses, namely those to which a name resolved (`addresses_named`).
DROP FUNCTION IF EXISTS users_that_reached(text, integer, timestamptz, timestamptz);  -- earlier versions had no `also`
CREATE OR REPLACE FUNCTION users_that_reached(
    target text,
    port   integer DEFAULT NULL,
    since  timestamptz DEFAULT now() - interval '1 day',
    until  timestamptz DEFAULT now(),
    also   text[] DEFAULT '{}'
)
RETURNS TABLE (
    email        text,
    destinations bigint,
    ports        bigint,
    rows         bigint,
    first        timestamptz,
    last         timestamptz
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, v.destinations, v.ports, v.rows, v.first, v.last
    FROM (
        SELECT s.user_id, count(DISTINCT s.destination_id) AS destinations, count(DISTINCT s.destination_port) AS ports,
               sum(s.rows)::bigint AS rows, min(s.first) AS first, max(s.last) AS last
        FROM (
            SELECT l.user_id, l.destination_id, l.destination_port, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= users_that_reached.since AND l."timestamp" < users_that_reached.until
              AND (users_that_reached.target IS NULL OR l.destination_id = ANY (ARRAY(
                      SELECT e.id FROM endpoints e
                      WHERE endpoint_fits(e.address, users_that_reached.target) OR e.address = ANY (users_that_reached.also)
                  )))
              AND (users_that_reached.port IS NULL OR l.destination_port = users_that_reached.port)
              AND l.destination_id IS NOT NULL AND l.action = 'accepted'
            GROUP BY l.user_id, l.destination_id, l.destination_port
        ) s
        GROUP BY s.user_id
    ) v
    LEFT JOIN users u ON u.id = v.user_id
    ORDER BY v.rows DESC, u.email
$$;


-- The connections to a destination one by one, for example to answer an abuse complaint.
DROP FUNCTION IF EXISTS connections_to(text, integer, timestamptz, timestamptz);  -- earlier versions had no `also`
CREATE OR REPLACE FUNCTION connections_to(
    target text,
    port   integer DEFAULT NULL,
    since  timestamptz DEFAULT now() - interval '1 day',
    until  timestamptz DEFAULT now(),
    also   text[] DEFAULT '{}'
)
RETURNS TABLE (
    "timestamp"      timestamptz,
    email            text,
    source_ip        inet,
    source_port      integer,
    destination      text,
    destination_port integer,
    outbound         text,
    node             text
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT l."timestamp", u.email::text, client_address(l.source_ip), l.source_port,
           e.address::text, l.destination_port, o.name::text, n.name::text
    FROM logs l
    LEFT JOIN endpoints e ON e.id = l.destination_id
    LEFT JOIN users u ON u.id = l.user_id
    LEFT JOIN tags o ON o.id = l.outbound_tag_id
    LEFT JOIN nodes n ON n.id = l.node_id
    WHERE l."timestamp" >= connections_to.since AND l."timestamp" < connections_to.until
      AND (connections_to.target IS NULL OR l.destination_id = ANY (ARRAY(
              SELECT d.id FROM endpoints d
              WHERE endpoint_fits(d.address, connections_to.target) OR d.address = ANY (connections_to.also)
          )))
      AND (connections_to.port IS NULL OR l.destination_port = connections_to.port)
      AND l.destination_id IS NOT NULL AND l.action = 'accepted'
    ORDER BY l."timestamp", l.id
$$;


-- The following functions read the tables `networks` and `dns_names`, which exist only if the operator wants them
-- (docs/networks.md). So the functions are created without checking their bodies.
SET check_function_bodies = off;

-- Country and provider of each address, or of a network that is part of one in the table; null if unknown. Networks
-- with a country do not overlap, and neither do those with a provider. So only the last network that does not begin
-- after the address can contain it.
CREATE OR REPLACE FUNCTION places_of(addresses inet[])
RETURNS TABLE (
    address  inet,
    country  text,
    asn      bigint,
    provider text
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT a.address, c.country, p.asn, p.provider
    FROM unnest(places_of.addresses) AS a (address)
    LEFT JOIN LATERAL (
        SELECT n.network, n.country
        FROM networks n
        WHERE n.network <= a.address AND n.country IS NOT NULL
        ORDER BY n.network DESC
        LIMIT 1
    ) c ON c.network >>= a.address
    LEFT JOIN LATERAL (
        SELECT n.network, n.asn, n.provider
        FROM networks n
        WHERE n.network <= a.address AND n.provider IS NOT NULL
        ORDER BY n.network DESC
        LIMIT 1
    ) p ON p.network >>= a.address
$$;

-- From how many countries and providers these users connected, in addition to `sharing`. OFFSET 0 makes the planner
-- look up each address only once.
CREATE OR REPLACE FUNCTION places_of_users(
    emails text[],
    since  timestamptz DEFAULT now() - interval '1 hour',
    until  timestamptz DEFAULT now()
)
RETURNS TABLE (
    email     text,
    countries bigint,
    providers bigint
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, count(DISTINCT c.country), count(DISTINCT p.provider)
    FROM (
        SELECT DISTINCT s.user_id, client_address(s.source_ip) AS address
        FROM (
            SELECT l.user_id, l.source_ip
            FROM logs l
            WHERE l.user_id = ANY (ARRAY(SELECT u.id FROM users u WHERE u.email = ANY (places_of_users.emails)))
              AND l."timestamp" >= places_of_users.since AND l."timestamp" < places_of_users.until
              AND l.action = 'accepted'
            GROUP BY l.user_id, l.source_ip
        ) s
        OFFSET 0
    ) a
    JOIN users u ON u.id = a.user_id
    LEFT JOIN LATERAL (
        SELECT n.network, n.country
        FROM networks n
        WHERE n.network <= a.address AND n.country IS NOT NULL
        ORDER BY n.network DESC
        LIMIT 1
    ) c ON c.network >>= a.address
    LEFT JOIN LATERAL (
        SELECT n.network, n.provider
        FROM networks n
        WHERE n.network <= a.address AND n.provider IS NOT NULL
        ORDER BY n.network DESC
        LIMIT 1
    ) p ON p.network >>= a.address
    GROUP BY u.email
$$;

-- The names of addresses, at most five of each, according to the answers of xray's DNS client from the day before the
-- window to its end; null for what is no address, or has no names. Days are in UTC.
CREATE OR REPLACE FUNCTION names_of(
    addresses text[],
    since     timestamptz DEFAULT now() - interval '1 day',
    until     timestamptz DEFAULT now()
)
RETURNS TABLE (
    address text,
    names   text[]
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT a.address, n.names
    FROM unnest(names_of.addresses) AS a (address)
    LEFT JOIN LATERAL (
        SELECT array_agg(o.name) AS names
        FROM (
            SELECT DISTINCT e.address::text AS name
            FROM dns_names d
            JOIN endpoints e ON e.id = d.endpoint_id
            WHERE d.address = endpoint_address(a.address)
              AND d.day >= (names_of.since AT TIME ZONE 'UTC')::date - 1
              AND d.day <= (names_of.until AT TIME ZONE 'UTC')::date
            ORDER BY name
            LIMIT 5
        ) o
    ) n ON true
$$;

-- The addresses to which a name, or names that match a pattern, resolved: for `users_that_reached` and
-- `connections_to`. Only addresses that are destinations, because a large provider has thousands, of which clients
-- contact a few.
CREATE OR REPLACE FUNCTION addresses_named(
    target text,
    since  timestamptz DEFAULT now() - interval '1 day',
    until  timestamptz DEFAULT now()
)
RETURNS TABLE (
    address text
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT DISTINCT host(d.address) AS address
    FROM dns_names d
    WHERE d.endpoint_id = ANY (ARRAY(SELECT e.id FROM endpoints e WHERE endpoint_fits(e.address, addresses_named.target)))
      AND d.day >= (addresses_named.since AT TIME ZONE 'UTC')::date - 1
      AND d.day <= (addresses_named.until AT TIME ZONE 'UTC')::date
      AND EXISTS (SELECT 1 FROM endpoints e WHERE e.address = host(d.address))
    ORDER BY address
$$;

RESET check_function_bodies;
