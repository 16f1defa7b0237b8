-- The functions of answers.sql for a database in which Citus distributes `logs`; for the set-up see docs/many-nodes.md.
--
--     psql -f answers.sql -f answers_citus.sql
--
-- The answers are the same. Four functions use another query, because Citus refuses to search `logs` once for each
-- name. All functions become PL/pgSQL, because Citus refuses SQL functions with parameters.


-- Destinations that nobody contacted before the window. All days before the window are read.
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
    SELECT (SELECT e.address::text FROM endpoints e WHERE e.id = v.destination_id) AS destination, v.users, v.rows,
           v.first, v.last
    FROM (
        SELECT w.destination_id, count(w.user_id) AS users, sum(w.rows)::bigint AS rows, min(w.first) AS first,
               max(w.last) AS last
        FROM (
            SELECT l.destination_id, l.user_id, count(*) AS rows, min(l."timestamp") AS first,
                   max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= new_destinations.since AND l."timestamp" < new_destinations.until
              AND l.destination_id IS NOT NULL AND l.action = 'accepted'
            GROUP BY l.destination_id, l.user_id
        ) w
        GROUP BY w.destination_id
    ) v
    LEFT JOIN (
        SELECT l.destination_id
        FROM logs l
        WHERE l."timestamp" < new_destinations.since AND l.destination_id IS NOT NULL
        GROUP BY l.destination_id
    ) before ON before.destination_id = v.destination_id
    WHERE before.destination_id IS NULL
    ORDER BY v.users DESC, v.rows DESC, v.destination_id
$$;


-- When each user was last let in, and from where; null for a user not seen since then.
CREATE OR REPLACE FUNCTION last_seen(since timestamptz DEFAULT now() - interval '30 days')
RETURNS TABLE (
    email     text,
    last      timestamptz,
    source_ip inet
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.email::text, seen.last, client_address(seen.source_ip)
    FROM users u
    LEFT JOIN (
        SELECT DISTINCT ON (s.user_id) s.user_id, s.last, s.source_ip
        FROM (
            SELECT l.user_id, l.source_ip, max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= last_seen.since AND l.action = 'accepted'
            GROUP BY l.user_id, l.source_ip
        ) s
        ORDER BY s.user_id, s.last DESC
    ) seen ON seen.user_id = u.id
    ORDER BY seen.last DESC NULLS LAST, u.email
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
    SELECT n.email, seen.last, client_address(seen.source_ip)
    FROM unnest(last_seen_of.emails) AS n (email)
    LEFT JOIN users u ON u.email = n.email
    LEFT JOIN (
        SELECT DISTINCT ON (s.user_id) s.user_id, s.last, s.source_ip
        FROM (
            SELECT l.user_id, l.source_ip, max(l."timestamp") AS last
            FROM logs l
            WHERE l."timestamp" >= last_seen_of.since AND l.action = 'accepted'
              AND l.user_id IN (SELECT o.id FROM users o WHERE o.email = ANY (last_seen_of.emails))
            GROUP BY l.user_id, l.source_ip
        ) s
        ORDER BY s.user_id, s.last DESC
    ) seen ON seen.user_id = u.id
    ORDER BY seen.last DESC NULLS LAST, n.email
$$;


-- Who is online, from where, and since when. The activity of all users is read, not only of those who are online. Rows
-- are grouped into slots of 20 minutes first, because a slot cannot contain a pause of 30 minutes.
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
        SELECT s.user_id,
               max(s.first) FILTER (WHERE s.pause IS NULL OR s.pause >= interval '30 minutes') AS online_since,
               max(s.last) AS last
        FROM (
            SELECT p.user_id, p.first, p.last,
                   p.first - lag(p.last) OVER (PARTITION BY p.user_id ORDER BY p.first) AS pause
            FROM (
                SELECT r.user_id, min(r."timestamp") AS first, max(r."timestamp") AS last
                FROM (
                    SELECT l.user_id, l."timestamp", floor(date_part('epoch', l."timestamp") / 1200) AS slot
                    FROM logs l
                    WHERE l."timestamp" >= online.since - interval '6 hours' AND l."timestamp" < online.until
                      AND l.action = 'accepted'
                    UNION ALL
                    SELECT NULL, NULL, NULL FROM logs WHERE false
                ) r
                GROUP BY r.user_id, r.slot
            ) p
        ) s
        GROUP BY s.user_id
    ) t
    JOIN (
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
    ) c ON c.user_id = t.user_id
    JOIN users u ON u.id = t.user_id
    ORDER BY t.online_since, u.email
$$;


-- A UNION ALL that adds no row helps the planner of a single server; with it, Citus would send all rows to the
-- coordinator.
DO $do$
DECLARE
    answer    record;
    statement text;
BEGIN
    FOR answer IN
        SELECT pg_get_functiondef(p.oid) AS definition, p.prosrc
        FROM pg_proc p
        WHERE p.pronamespace = current_schema()::regnamespace
          AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'sql')
          AND p.proname = ANY (ARRAY[
              'addresses_of_users', 'sharing', 'networks_of', 'destinations_of', 'total_of', 'days_of', 'ports_of',
              'outbound_tags_of', 'addresses_of', 'rejected_of', 'users_of', 'who_reached', 'users_that_fan_out',
              'rows_by_port', 'users_of_ports', 'rows_by_outbound', 'users_by_outbound', 'destinations_by_outbound',
              'new_destinations', 'last_seen', 'last_seen_of', 'online', 'users_over_time', 'traffic_by_hour',
              'traffic', 'traffic_per', 'rejected_sources', 'rejected_networks', 'rejected_reasons', 'users_from',
              'rejected_from', 'users_that_reached', 'connections_to', 'places_of_users'
          ])
    LOOP
        statement := regexp_replace(
            answer.prosrc, '\s+UNION ALL\s+SELECT (?:NULL(?:, )?)+ FROM logs WHERE false', '', 'g'
        );
        EXECUTE replace(
            replace(answer.definition, E'\n LANGUAGE sql\n', E'\n LANGUAGE plpgsql\n'),
            answer.prosrc,
            E'\n#variable_conflict use_column\nBEGIN\n    RETURN QUERY' || statement || E'    ;\nEND\n'
        );
    END LOOP;
END
$do$;
