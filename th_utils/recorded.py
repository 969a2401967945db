"""Results that travel with the repository: of models that not every reader can fetch or run.

`data/recorded/<edition>/` holds the tables behind figures as a build of that edition wrote them
(`make record EDITION=...`), each with its own provenance. Their digest says from which sources they
were computed; where the weights are present, a test computes them again.
"""

from __future__ import annotations

import json
from typing import Any

from th_utils.paths import data_path
from th_utils.results import Results, read_table

DATA_FILES = ("recorded/*/*.json",)


def find(edition: str, figure: str) -> Results | None:
    """The recorded table behind one figure of one edition, None where there is none."""
    path = data_path("recorded", edition, f"{figure}.json")
    return read_table(path) if path.is_file() else None


def editions() -> list[str]:
    """The editions that have recorded results, by name."""
    return sorted(path.parent.name for path in data_path("recorded").glob("*/claims.json"))


def claims(edition: str) -> list[dict[str, Any]]:
    """The recorded claims of one edition, as `th_utils.chapter` records them; none where absent."""
    path = data_path("recorded", edition, "claims.json")
    return json.loads(path.read_text(encoding="utf-8"))["claims"] if path.is_file() else []
