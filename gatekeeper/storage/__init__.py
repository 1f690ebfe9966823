"""Remembers: limiter state, records, decision log, secrets."""
