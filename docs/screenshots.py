"""``python docs/screenshots.py``: the newest finished run in both browsers of ``make ui``, as pictures.

Wants Chromium; look at the pictures, and crop them, before you commit them.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

PREFECT, MLFLOW = "http://127.0.0.1:4200", "http://127.0.0.1:5000"
SIZE = "1600,1000"
FINDINGS = "tags.`mipriv.kind` = 'finding' AND metrics.natural_accuracy >= 0.95 AND tags.attack = 'ppa'"


def shoot(address: str, picture: Path) -> None:
    """Render a page that draws itself with scripts."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("error: neither chromium nor google-chrome is installed")
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}"]
        wait = ["--virtual-time-budget=20000", f"--window-size={SIZE}"]
        subprocess.run([program, *options, *wait, f"--screenshot={picture}", address], check=True)


def newest() -> str:
    """The flow run that ended last with stages computed."""
    wanted = {"sort": "START_TIME_DESC", "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    request = urllib.request.Request(
        f"{PREFECT}/api/flow_runs/filter",
        data=json.dumps(wanted).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        runs = json.load(answer)
    done = [run["id"] for run in runs if "computed" in (run["state"]["message"] or "")]
    if not done:
        raise SystemExit(f"error: {PREFECT} knows no finished run; make one with: make flow")
    return str(done[0])


def main() -> int:
    """Write prefect_run.png, mlflow_runs.png and mlflow_findings.png."""
    folder = Path(__file__).parent / "pictures"
    shoot(f"{PREFECT}/runs/flow-run/{newest()}", folder / "prefect_run.png")
    shoot(f"{MLFLOW}/#/experiments/1/runs", folder / "mlflow_runs.png")
    asked = {"searchFilter": FINDINGS, "orderByKey": "metrics.`accuracy_at_1`", "orderByAsc": "true"}
    shoot(f"{MLFLOW}/#/experiments/1/runs?{urlencode(asked)}", folder / "mlflow_findings.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
