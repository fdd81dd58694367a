"""Signed requests: who signed this, with what, and was it so. Pure: the time and the secret are arguments."""
