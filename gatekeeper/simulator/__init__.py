"""Populations and adversaries that never were, to measure how campaigns are found."""
