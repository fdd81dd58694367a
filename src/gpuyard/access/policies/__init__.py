"""IAM JSON policies: read, checked, compiled to closures, decided. Pure; whatever is not understood denies."""
