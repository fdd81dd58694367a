"""An independent evaluator of IAM policies, installed with npm into a folder of its own and run as another process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE = "@cloud-copilot/iam-simulate@0.1.173"
_HERE = Path(__file__).parent
_HOME = Path(sys.prefix) / "policy-oracle"  # goes with the virtual environment


def missing() -> str:
    """Why it cannot be had here; empty where it can."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "the policy oracle needs node and npm"
    if (_HOME / "installed").exists():
        return ""
    _HOME.mkdir(exist_ok=True)
    (_HOME / "package.json").write_text('{"private": true, "type": "module"}')
    try:
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
        done = subprocess.run(command, cwd=_HOME, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        return f"npm did not fetch {PACKAGE} within 90 s"
    if done.returncode != 0:
        return f"npm cannot fetch {PACKAGE}: {done.stderr.strip()[-200:]}"
    (_HOME / "installed").touch()
    return ""


def verdicts(simulations: Sequence[dict[str, Any]]) -> list[str]:
    """`Allowed`, `ExplicitlyDenied` or `ImplicitlyDenied` for each; `missing()` must have been empty."""
    shutil.copy(_HERE / "policy_oracle.mjs", _HOME / "oracle.mjs")
    told = "".join(json.dumps(simulation) + "\n" for simulation in simulations)
    done = subprocess.run(
        ["node", "oracle.mjs"], cwd=_HOME, input=told, capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return done.stdout.splitlines()
