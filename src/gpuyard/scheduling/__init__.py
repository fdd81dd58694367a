"""Pure placement: a fleet snapshot and requests go in, a Plan with reasons comes out."""
