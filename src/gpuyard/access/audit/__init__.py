"""The audit log's form: entries, the Merkle tree over them, and signed checkpoints. Who writes it down is not here."""
