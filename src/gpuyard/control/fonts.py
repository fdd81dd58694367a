"""Where this machine has a font with Chinese characters."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "GPUYARD_CJK_FONT"
# TrueType fonts of Debian, Ubuntu and Fedora that hold Latin and Chinese letters alike.
_KNOWN = (
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/wqy-microhei/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/arphic/uming.ttc",
)


def cjk_font() -> Path | None:
    """The font that the environment names, or the first known one that is installed."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return next((Path(path) for path in _KNOWN if Path(path).is_file()), None)
