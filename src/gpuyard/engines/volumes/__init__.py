"""Volumes that are encrypted with a key of their tenant's: ciphertext on disk, plain text in a mount."""
