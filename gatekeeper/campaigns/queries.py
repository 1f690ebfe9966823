"""The heavy joins, in SQL that other engines speak too.

No arrays, no macros, no casts by ``::``, nothing of one engine only: window functions, common table
expressions and aggregates of SQL:2003. What varies is filled in by name.
"""

from __future__ import annotations

from typing import Final

ACCOUNTS: Final = """
CREATE OR REPLACE TEMP TABLE accounts AS
SELECT account, COALESCE('o:' || MAX(organization), 'a:' || account) AS name,
       MAX(CASE WHEN organization IS NULL THEN 0 ELSE 1 END) AS organized,
       MAX(CASE WHEN assurance IN ('ial1', 'ial2') THEN 1 ELSE 0 END) AS proven,
       MIN(created_at) AS created_at,
       MAX(payment) AS payment, MAX(signup) AS signup, MAX(mail) AS mail
FROM calls GROUP BY account
"""
"""Accounts of the longest window, from what rides on their calls."""

NODES: Final = """
CREATE OR REPLACE TEMP TABLE nodes AS
SELECT ROW_NUMBER() OVER (ORDER BY name) - 1 AS node, name,
       MAX(organized) AS organized, MAX(proven) AS proven, MIN(created_at) AS created_at,
       MAX(payment) AS payment, MAX(signup) AS signup, MAX(mail) AS mail
FROM accounts GROUP BY name
"""
"""An organization is one node with all of its accounts; any other account is its own."""

MEMBERS: Final = """
CREATE OR REPLACE TEMP TABLE members AS
SELECT accounts.account, nodes.node FROM accounts JOIN nodes ON accounts.name = nodes.name
"""

PLACES: Final = """
CREATE OR REPLACE TEMP TABLE places AS
SELECT node, address, prefix, client, egress,
       CASE WHEN kind IN ('mobile', 'vpn', 'relay', 'tor', 'private') THEN 1 ELSE 0 END AS common,
       CASE WHEN kind = 'hosting' THEN 1 ELSE 0 END AS hosted,
       CAST(FLOOR(seen_at / 86400) AS BIGINT) AS day, COUNT(*) AS calls
FROM calls JOIN members ON calls.account = members.account
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""

ADDRESSES: Final = """
WITH seen AS (
  SELECT node, address, day, SUM(calls) AS calls FROM places
  WHERE address <> 0 AND common = 0 AND NOT egress GROUP BY node, address, day
), counted AS (
  SELECT node, address, day, calls, COUNT(*) OVER (PARTITION BY address, day) AS holders FROM seen
)
SELECT node, address AS digest, day AS other, CAST(calls AS BIGINT) AS calls, holders
FROM counted WHERE holders BETWEEN 2 AND {address_hub}
"""
"""Addresses that a few used on the same day: leases of a day apart are strangers."""

SUBNET_CLIENTS: Final = """
WITH seen AS (
  SELECT node, prefix, client, SUM(calls) AS calls FROM places
  WHERE prefix <> 0 AND client <> 0 AND common = 0 AND NOT egress GROUP BY node, prefix, client
), counted AS (
  SELECT node, prefix, client, calls, COUNT(*) OVER (PARTITION BY prefix, client) AS holders
  FROM seen
), in_prefix AS (
  SELECT prefix, COUNT(DISTINCT node) AS nodes FROM seen GROUP BY prefix
), with_client AS (
  SELECT client, COUNT(DISTINCT node) AS nodes FROM seen GROUP BY client
)
SELECT counted.node, counted.prefix AS digest, counted.client AS other,
       CAST(counted.calls AS BIGINT) AS calls, counted.holders,
       in_prefix.nodes AS in_prefix, with_client.nodes AS with_client
FROM counted JOIN in_prefix ON counted.prefix = in_prefix.prefix
JOIN with_client ON counted.client = with_client.client
WHERE counted.holders >= 2
"""

CONTENTS: Final = """
WITH seen AS (
  SELECT node, {column} AS digest, COUNT(*) AS calls
  FROM calls JOIN members ON calls.account = members.account
  GROUP BY node, {column}
), shares AS (
  SELECT node, digest, calls, SUM(calls) OVER (PARTITION BY node) AS total FROM seen
), main AS (
  SELECT node, digest, calls FROM shares WHERE digest <> 0 AND calls >= {least_share} * total
), counted AS (
  SELECT node, digest, calls, COUNT(*) OVER (PARTITION BY digest) AS holders FROM main
)
SELECT node, digest, calls, holders FROM counted WHERE holders >= {least_holders}
"""
"""What makes up a good part of the calls of an account: system prompts, tools, shapes."""

TASKS: Final = """
WITH done AS (
  SELECT node, first_block, last_block, COUNT(*) AS calls
  FROM calls JOIN members ON calls.account = members.account
  WHERE first_block <> 0 AND seen_at > {since} GROUP BY node, first_block, last_block
), shared AS (
  SELECT node, first_block, calls,
         SUM(calls) OVER (PARTITION BY first_block, last_block) AS times FROM done
), doers AS (
  SELECT node, first_block, SUM(calls) AS calls,
         SUM(CASE WHEN times > 1 THEN calls ELSE 0 END) AS repeated
  FROM shared GROUP BY node, first_block
), sharers AS (
  SELECT node, first_block, calls FROM doers WHERE calls >= 5 AND repeated * 50 <= calls
), counted AS (
  SELECT node, first_block, calls, COUNT(*) OVER (PARTITION BY first_block) AS holders FROM sharers
)
SELECT node, first_block AS digest, CAST(calls AS BIGINT) AS calls, holders
FROM counted WHERE holders >= 2
"""
"""Accounts whose messages begin alike and that never do a task which anybody did before."""

SLOTS: Final = """
WITH slots AS (
  SELECT DISTINCT node, CAST(FLOOR(seen_at / 600) AS BIGINT) AS slot
  FROM calls JOIN members ON calls.account = members.account WHERE seen_at > {since}
), counted AS (
  SELECT node, slot, COUNT(*) OVER (PARTITION BY node) AS active FROM slots
)
SELECT node, slot FROM counted WHERE active BETWEEN 8 AND {most} ORDER BY node
"""
"""Ten-minute slots in which an account was active, for those neither rare nor always there."""

PIVOTS: Final = """
WITH used AS (
  SELECT node, model, MIN(seen_at) AS first_at, MAX(seen_at) AS last_at, COUNT(*) AS calls
  FROM calls JOIN members ON calls.account = members.account
  WHERE model IS NOT NULL GROUP BY node, model
), dated AS (
  SELECT node, model, first_at, calls, MIN(first_at) OVER (PARTITION BY model) AS released,
         MIN(first_at) OVER (PARTITION BY node) AS began FROM used
), moved AS (
  SELECT node, model, calls, released FROM dated
  WHERE released > {start} + 86400 AND began < released AND first_at < released + 86400
), after AS (
  SELECT moved.node, moved.model, moved.calls, COUNT(*) AS total
  FROM moved JOIN members ON moved.node = members.node
  JOIN calls ON calls.account = members.account AND calls.seen_at >= moved.released
  GROUP BY moved.node, moved.model, moved.calls
), counted AS (
  SELECT node, model, calls, COUNT(*) OVER (PARTITION BY model) AS holders
  FROM after WHERE calls * 2 >= total
)
SELECT node, model, calls, holders FROM counted WHERE holders >= 2
"""
"""Who was there before a model was first seen, and does most of its calls on it from that day."""

ACTIVITY: Final = """
WITH daily AS (
  SELECT node, CAST(FLOOR(seen_at / 86400) AS BIGINT) AS day, COUNT(*) AS calls,
         MIN(seen_at) AS first_at, MAX(seen_at) AS last_at,
         SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens
  FROM calls JOIN members ON calls.account = members.account GROUP BY 1, 2
)
SELECT node, CAST(SUM(calls) AS BIGINT) AS calls, COUNT(*) AS days,
       CAST(SUM(calls * calls) AS DOUBLE) AS squares,
       MIN(first_at) AS first_at, MAX(last_at) AS last_at,
       CAST(SUM(input_tokens) AS BIGINT) AS input_tokens,
       CAST(SUM(output_tokens) AS BIGINT) AS output_tokens
FROM daily GROUP BY node ORDER BY node
"""

SPREAD: Final = """
WITH seen AS (
  SELECT node, address, SUM(calls) AS calls, MAX(hosted) AS hosted
  FROM places GROUP BY node, address
)
SELECT node, COUNT(*) AS addresses, CAST(SUM(hosted * calls) AS BIGINT) AS hosted
FROM seen GROUP BY node ORDER BY node
"""

MAIN_NETWORKS: Final = """
WITH seen AS (
  SELECT node, prefix, SUM(calls) AS calls FROM places GROUP BY node, prefix
), ranked AS (
  SELECT node, prefix, ROW_NUMBER() OVER (PARTITION BY node ORDER BY calls DESC, prefix) AS place
  FROM seen
)
SELECT node, prefix FROM ranked WHERE place = 1 ORDER BY node
"""

CLOCK: Final = """
SELECT node, CAST(FLOOR(seen_at / 3600) AS BIGINT) % 24 AS hour, COUNT(*) AS calls
FROM calls JOIN members ON calls.account = members.account WHERE seen_at > {since} GROUP BY 1, 2
"""

CLASSES: Final = """
SELECT node, class, COUNT(*) AS calls
FROM classes JOIN members ON classes.account = members.account GROUP BY node, class
"""

GROUP_ADDRESSES: Final = """
SELECT grouped.code, COUNT(DISTINCT places.address) AS addresses
FROM grouped JOIN places ON grouped.node = places.node GROUP BY grouped.code
"""

GROUP_MIX: Final = """
SELECT grouped.code, calls.{column} AS word, COUNT(*) AS calls
FROM grouped JOIN members ON grouped.node = members.node
JOIN calls ON calls.account = members.account
WHERE calls.{column} IS NOT NULL GROUP BY grouped.code, calls.{column}
ORDER BY grouped.code, calls DESC, word
"""
"""Calls of each group by kind of network, or by model."""

GROUP_CLASSES: Final = """
SELECT grouped.code, classes.class AS word, COUNT(*) AS calls
FROM grouped JOIN members ON grouped.node = members.node
JOIN classes ON classes.account = members.account GROUP BY grouped.code, classes.class
ORDER BY grouped.code, calls DESC, word
"""

STATEMENTS: Final = (
    ACCOUNTS, NODES, MEMBERS, PLACES, ADDRESSES, SUBNET_CLIENTS, CONTENTS, TASKS, SLOTS, PIVOTS,
    ACTIVITY, SPREAD, MAIN_NETWORKS, CLOCK, CLASSES, GROUP_ADDRESSES, GROUP_MIX,
    GROUP_CLASSES,
)  # fmt: skip
"""All of them, for who moves them to another engine."""
