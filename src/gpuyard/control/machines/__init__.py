"""Machines that join: their authorities, who is let in, and what they tell."""
