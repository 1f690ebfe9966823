"""Forwards, streams, cancels, and picks which upstream."""
