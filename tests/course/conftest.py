"""Fixtures for widgets in a browser."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).resolve().parents[2]))  # for tools

from widget_page import show

__all__ = ["show"]
