"""Records as the release before wrote them: its tables, statement by statement, and some rows."""

from __future__ import annotations

from typing import Final

AT: Final = 1_790_000_000.0

_TABLES: Final = """
CREATE TABLE records_meta (
    id INTEGER NOT NULL, version INTEGER NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (id)
);
CREATE TABLE accounts (
    id VARCHAR(255) NOT NULL,
    organization VARCHAR(200),
    tier VARCHAR(16) NOT NULL,
    assurance VARCHAR(16) NOT NULL,
    assurance_expires {double},
    created_at {double},
    email_domain VARCHAR(253),
    banned_until {double},
    ban_reason TEXT,
    owners JSON NOT NULL,
    owner_countries JSON NOT NULL,
    opaque BOOLEAN NOT NULL,
    updated_at {double} NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX ix_accounts_seq ON accounts (seq);
CREATE TABLE api_keys (
    key_id VARCHAR(32) NOT NULL,
    digest {bytes} NOT NULL,
    account_id VARCHAR(255) NOT NULL,
    label VARCHAR(200) NOT NULL,
    created_at {double} NOT NULL,
    expires_at {double},
    revoked_at {double},
    seq BIGINT NOT NULL,
    PRIMARY KEY (key_id),
    UNIQUE (digest),
    FOREIGN KEY(account_id) REFERENCES accounts (id)
);
CREATE INDEX ix_api_keys_account_id ON api_keys (account_id);
CREATE INDEX ix_api_keys_seq ON api_keys (seq)
"""

ACCOUNT: Final = (
    "INSERT INTO accounts (id, organization, tier, assurance, assurance_expires, created_at,"
    " email_domain, banned_until, ban_reason, owners, owner_countries, opaque, updated_at, seq)"
    " VALUES ('{id}', 'Acme AG', 'trusted', 'ial2', NULL, 1700000000.5, 'acme.example', NULL,"
    " NULL, '[\"bytedance\"]', '[\"CN\"]', {false}, 1790000000.0, {seq})"
)
"""As the release before writes one."""

_ROWS: Final = (
    "INSERT INTO records_meta (id, version, seq) VALUES (1, 1, 2)",
    (
        "INSERT INTO api_keys (key_id, digest, account_id, label, created_at, expires_at,"
        " revoked_at, seq)"
        " VALUES ('gk_old', {digest}, 'acme', 'ci', 1790000000.0, NULL, NULL, 2)"
    ),
)


def version_1(dialect: str) -> tuple[str, ...]:
    """Return the statements that make records of version 1 with one account and one key."""
    return tuple(
        in_dialect(statement, dialect)
        for statement in (
            *_TABLES.strip().split(";\n"),
            ACCOUNT.replace("{id}", "acme").replace("{seq}", "1"),
            *_ROWS,
        )
    )


def in_dialect(statement: str, dialect: str) -> str:
    """Spell a statement as ``sqlite`` or ``postgresql`` takes it."""
    words = {
        "sqlite": {
            "double": "DOUBLE",
            "bytes": "BLOB",
            "false": "0",
            "digest": "x'" + "aa" * 32 + "'",
        },
        "postgresql": {
            "double": "DOUBLE PRECISION",
            "bytes": "BYTEA",
            "false": "false",
            "digest": "'\\x" + "aa" * 32 + "'",
        },
    }[dialect]
    for name, word in words.items():
        statement = statement.replace("{" + name + "}", word)
    return statement
