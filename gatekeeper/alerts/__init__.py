"""Alerts: conditions of this process are watched, and their changes posted, signed."""
