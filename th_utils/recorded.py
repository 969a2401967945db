"""Results that travel with the repository: of models that not every reader can fetch or run.

`data/recorded/<edition>/` holds the tables behind figures as a build of that edition wrote them
(`make record EDITION=...`), each with its own provenance. Their digest says from which sources they
were computed; where the weights are present, a test computes them again.
"""

from __future__ import annotations

from th_utils.paths import data_path
from th_utils.results import Results, read_table

DATA_FILES = ("recorded/*/*.json",)


def find(edition: str, figure: str) -> Results | None:
    """The recorded table behind one figure of one edition, None where there is none."""
    path = data_path("recorded", edition, f"{figure}.json")
    return read_table(path) if path.is_file() else None
