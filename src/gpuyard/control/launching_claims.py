"""What a launch asks for, in the units of quotas."""

from __future__ import annotations

from dataclasses import dataclass

from gpuyard.model.workloads import WorkloadSpec


@dataclass(frozen=True, slots=True)
class Claim:
    """All replicas together."""

    card_share_ppm: int
    card_memory_bytes: int
    storage_bytes: int
    spend_per_hour_nano: int

    def amounts(self) -> dict[str, int]:
        """By name."""
        return {
            "card_share_ppm": self.card_share_ppm,
            "card_memory_bytes": self.card_memory_bytes,
            "storage_bytes": self.storage_bytes,
            "spend_per_hour_nano": self.spend_per_hour_nano,
        }


def claim_of(spec: WorkloadSpec, price_per_hour_nano: int, cpu_only: bool = False) -> Claim:
    """What the workload counts for; the price is that of one replica."""
    slices = 0 if cpu_only else spec.slices.count * spec.replicas
    return Claim(
        card_share_ppm=spec.slices.shape.compute_ppm * slices,
        card_memory_bytes=spec.slices.shape.memory_bytes * slices,
        storage_bytes=spec.disk_bytes * spec.replicas,
        spend_per_hour_nano=price_per_hour_nano * spec.replicas,
    )
