"""The SQL that makes sightings of records: every column is named, whatever a line says."""

from __future__ import annotations

from typing import Final

_TRAITS: Final = """STRUCT(epoch VARCHAR, client BIGINT, headers BIGINT, "system" BIGINT,
 tools BIGINT, format BIGINT, scaffold BIGINT, blocks BIGINT[], shape BIGINT)"""
_FACTS: Final = f"""STRUCT(
 network STRUCT(address_key VARCHAR, prefix_key VARCHAR, asn INTEGER, kind VARCHAR,
  country VARCHAR, registered_egress BOOLEAN),
 account STRUCT(id VARCHAR, organization VARCHAR, organization_verified BOOLEAN, tier VARCHAR,
  assurance VARCHAR, created_at DOUBLE, payment BIGINT, signup BIGINT, mail BIGINT),
 call STRUCT(model VARCHAR, input_tokens BIGINT, max_output_tokens BIGINT, asks VARCHAR[],
  capabilities VARCHAR[]),
 traits {_TRAITS}[], campaign STRUCT(id VARCHAR, stage VARCHAR))"""

LOAD: Final = f"""CREATE OR REPLACE TEMP TABLE loaded AS
SELECT * FROM read_json(?, format = 'newline_delimited', ignore_errors = true, columns = {{
 kind: 'VARCHAR', id: 'VARCHAR', "at": 'DOUBLE', verdict: 'VARCHAR', enforced: 'BOOLEAN',
 took_s: 'DOUBLE', usage: 'STRUCT(output_tokens BIGINT)', facts: '{_FACTS}'}})"""  # noqa: S608
"""Reads a file of lines; one that is no JSON becomes a row of nothing."""

SIGHTINGS: Final = """CREATE OR REPLACE TEMP TABLE outcomes_new AS
SELECT id, any_value(usage.output_tokens) AS output_tokens,
 strftime(to_timestamp(any_value("at" - coalesce(took_s, 0))) AT TIME ZONE 'UTC', '%Y-%m-%d') AS day
FROM loaded WHERE kind = 'outcome' AND usage.output_tokens >= 0 AND "at" BETWEEN 0 AND 4e9
GROUP BY id;
CREATE OR REPLACE TEMP TABLE sightings_new AS
WITH calls AS (
 SELECT *, unnest(facts.traits) AS trait FROM loaded
 WHERE kind = 'decision' AND "at" >= ? AND "at" <= 4e9 AND facts.account.id IS NOT NULL)
SELECT "at", id, facts.account.id AS account,
 CASE WHEN facts.account.organization_verified THEN facts.account.organization END AS organization,
 coalesce(facts.account.assurance, 'none') AS assurance,
 coalesce(facts.account.tier, 'standard') AS tier, facts.account.created_at AS created_at,
 coalesce(facts.account.payment, 0) AS payment, coalesce(facts.account.signup, 0) AS signup,
 coalesce(facts.account.mail, 0) AS mail, verdict,
 verdict = 'allow' OR NOT coalesce(enforced, true) AS admitted, facts.call.model AS model,
 coalesce(facts.call.input_tokens, 0) AS input_tokens,
 coalesce(settled.output_tokens, facts.call.max_output_tokens, 0) AS output_tokens,
 coalesce(try_cast('0x' || facts.network.address_key[1:15] AS BIGINT), 0) AS address,
 coalesce(try_cast('0x' || facts.network.prefix_key[1:15] AS BIGINT), 0) AS prefix,
 facts.network.asn AS asn, coalesce(facts.network.kind, 'unknown') AS kind,
 facts.network.country AS country, coalesce(facts.network.registered_egress, false) AS egress,
 trait.epoch AS epoch, coalesce(trait.client, 0) AS client, coalesce(trait.headers, 0) AS headers,
 coalesce(trait."system", 0) AS "system", coalesce(trait.tools, 0) AS tools,
 coalesce(trait.format, 0) AS format, coalesce(trait.scaffold, 0) AS scaffold,
 coalesce(trait.blocks, []::BIGINT[]) AS blocks, coalesce(trait.shape, 0) AS shape,
 coalesce(facts.call.asks, []::VARCHAR[]) AS asks,
 coalesce(facts.call.capabilities, []::VARCHAR[]) AS capabilities,
 facts.campaign.id AS campaign, facts.campaign.stage AS stage
FROM calls LEFT JOIN outcomes_new AS settled USING (id) WHERE trait.epoch IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY id, epoch ORDER BY "at") = 1"""
"""One row for each epoch of a call that was read; its parameter is the oldest time kept.

Only verified organizations are told: others shelter nobody.
"""

DROP_SEEN: Final = """DELETE FROM sightings_new USING (
 SELECT id, epoch FROM read_parquet(?, hive_partitioning = false)
 SEMI JOIN sightings_new USING (id, epoch)) AS seen
WHERE sightings_new.id = seen.id AND sightings_new.epoch = seen.epoch"""
"""Drops what earlier runs have taken, by another way; the same call is on the same day."""

_DAY: Final = """strftime(to_timestamp("at") AT TIME ZONE 'UTC', '%Y-%m-%d')"""
DAYS: Final = f"SELECT DISTINCT {_DAY} AS day FROM sightings_new ORDER BY day"  # noqa: S608
WRITE_DAY: Final = f"""COPY (SELECT * FROM sightings_new WHERE {_DAY} = $1 ORDER BY "at", id)
TO $2 (FORMAT parquet)"""  # noqa: S608
LATE_FILES: Final = """SELECT DISTINCT seen.filename FROM read_parquet(?, filename = true,
 hive_partitioning = false) AS seen JOIN outcomes_new AS late USING (id)
WHERE seen.output_tokens <> late.output_tokens"""
UPDATED: Final = """COPY (SELECT seen.* REPLACE (
 coalesce(late.output_tokens, seen.output_tokens) AS output_tokens)
FROM read_parquet($1, hive_partitioning = false) AS seen LEFT JOIN outcomes_new AS late USING (id)
ORDER BY seen."at", seen.id) TO $2 (FORMAT parquet)"""
MERGED: Final = """COPY (SELECT * FROM read_parquet($1, hive_partitioning = false,
 union_by_name = true)) TO $2 (FORMAT parquet)"""
"""Files keep their order, and so do their rows; an older release may have written fewer columns."""
