"""Runs, schedules and shows the project; starts processes, and imports neither `mipriv` nor `tasks`.

Prefect reads its settings when it is imported, hence they are settled here: its state belongs in the project,
and nothing reports home. What the user has set stays.
"""

import os
from pathlib import Path

if Path("dvc.yaml").is_file():
    os.environ.setdefault("PREFECT_HOME", str(Path(".prefect").absolute()))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "true")
