"""Follows what may change while calls are served: rule files, network data, the records."""
