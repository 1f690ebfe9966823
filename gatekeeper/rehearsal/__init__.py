"""The real decision code with a clock of its own: recorded, foreign or simulated traffic."""
