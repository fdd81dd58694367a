"""Runs the scheduler over traces in virtual time: the same kernel as a yard, and a log that anybody can check."""
