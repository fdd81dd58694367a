"""A machine with NVIDIA cards for tests and demos, without a card: a driver that is emulated down to its libraries."""

from gpuyard.testing.machine import CardState, Machine, ProcessUse
from gpuyard.testing.running import emulate
from gpuyard.testing.specs import EmulatedCard

__all__ = ["CardState", "EmulatedCard", "Machine", "ProcessUse", "emulate"]
