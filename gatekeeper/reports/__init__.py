"""Reports of campaigns, for people outside: what was seen, how sure it is, and what was done.

No prompt was ever kept. Members, digests of traits and names of people are left out unless the
operator chooses otherwise.
"""
