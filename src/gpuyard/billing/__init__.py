"""Pure money: intervals in, exact lines out."""
