"""Checks a simulation's log against the node and pod lists alone. Shares no code with what wrote it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Server:
    cpu: int
    memory: int
    model: str
    free: list[int]  # milli of each card


@dataclass
class Found:
    placed: int = 0
    refused: int = 0
    moved: int = 0
    ended: int = 0
    used_milli: int = 0
    most_used_milli: int = 0


def check(nodes: Path, pods: Path, log: Path, *, conserving: bool = True) -> Found:
    """Replays every row; raises AssertionError that names the row where something cannot have been."""
    servers = {
        row["sn"]: Server(int(row["cpu_milli"]), int(row["memory_mib"]), row["model"], [1000] * int(row["gpu"]))
        for row in _rows(nodes)
    }
    asked = {row["name"]: row for row in _rows(pods)}
    found, holding, time = Found(), dict[str, tuple[str, list[int]]](), -1.0
    for row in _rows(log):
        pod, where = asked[row["pod"]], row
        cpu, memory = int(pod["cpu_milli"]), int(pod["memory_mib"])
        count, milli = int(pod["num_gpu"]), int(pod["gpu_milli"] or 0)
        models = [name for name in (pod.get("gpu_spec") or "").split("|") if name]
        assert float(row["time"]) >= time, where
        time = float(row["time"])
        if row["reason"] in ("ended", "moved", "interrupted"):
            name, cards = holding.pop(row["seq"])
            servers[name].cpu += cpu
            servers[name].memory += memory
            for card in cards:
                servers[name].free[card] += milli
            found.used_milli -= count * milli
            if row["reason"] != "moved":
                assert row["node"] == name, where
                found.ended += 1
                continue
            found.moved += 1
        if not row["node"]:
            found.refused += 1
            assert row["reason"], where
            if conserving:
                for name, server in servers.items():
                    fits = server.cpu >= cpu and server.memory >= memory
                    if fits and not (count and models and server.model not in models):
                        assert sum(free >= milli for free in server.free) < count or not (fits or count), (where, name)
            continue
        server = servers[row["node"]]
        cards = [int(card) for card in row["cards"].split()]
        assert len(cards) == len(set(cards)) == count, where
        assert row["shares"].split() == [str(milli)] * count, where
        assert not count or not models or server.model in models, where
        server.cpu -= cpu
        server.memory -= memory
        assert min(server.cpu, server.memory) >= 0, where
        for card in cards:
            server.free[card] -= milli
            assert server.free[card] >= 0, where
        assert row["seq"] not in holding, where
        holding[row["seq"]] = (row["node"], cards)
        found.placed += row["reason"] == "placed"
        found.used_milli += count * milli
        found.most_used_milli = max(found.most_used_milli, found.used_milli)
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
