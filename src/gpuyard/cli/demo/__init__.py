"""A whole yard at work: what `gpuyard demo` shows."""
