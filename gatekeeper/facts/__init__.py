"""Observes: client address, network, credentials, accounts."""
