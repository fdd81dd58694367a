"""Small level-triggered loops that make the world match the store."""
