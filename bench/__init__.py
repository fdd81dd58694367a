"""Measurements against a goal and a peer. Never timed tests: a figure tells, a test decides."""
