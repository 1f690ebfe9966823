"""Trials: simulated campaigns against the watcher and the gate, and what is measured of them."""
