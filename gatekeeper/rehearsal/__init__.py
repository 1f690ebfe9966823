"""Rehearsals: calls that nobody waits for, through the code that decides real ones.

Recorded traffic is replayed by it, and the simulator's callers meet the gate in it. Time is that of
the calls; nothing is sent anywhere.
"""
