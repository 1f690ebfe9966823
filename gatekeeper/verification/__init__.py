"""Step-up: proving an identity."""
