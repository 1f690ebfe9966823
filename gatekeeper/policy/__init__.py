"""Pure policy: no I/O, no clock, no chance, and nothing of ours imported from outside."""
