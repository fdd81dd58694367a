"""gpuyard turns graphics cards into a cloud."""

__version__ = "0.1.0"
