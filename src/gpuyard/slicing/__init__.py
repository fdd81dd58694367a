"""Cutting a card, and who guarantees the cut."""
