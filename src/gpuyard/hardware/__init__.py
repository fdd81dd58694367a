"""What this machine has: NVIDIA and simulated probes behind one protocol."""
