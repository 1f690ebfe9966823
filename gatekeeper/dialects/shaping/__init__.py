"""What shaping takes out of answers: one file per family, and the arithmetic of log probabilities.

Everything is changed in place: what a rule does not ask for stays as it came, to the byte.
"""
