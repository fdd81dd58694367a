"""Where workloads run, behind one protocol."""
