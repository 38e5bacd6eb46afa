"""`make pdf`: the report as PDF pages, by a headless Chromium; any browser prints the same."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from flows.project import artifact, fail, root

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def pdf(page: Path, target: Path) -> None:
    """Print a page.

    Raises:
        Mistake: there is no page, no browser, or it printed nothing.
    """
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if not page.is_file():
        fail(f"{page} is not there; run the pipeline first")
    if program is None:
        fail(f"none of {', '.join(PROGRAMS)} is installed; print {page} from any browser instead")
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        options += ["--no-pdf-header-footer", f"--print-to-pdf={target}"]
        done = subprocess.run([program, *options, page.as_uri()], capture_output=True, check=False)
    if done.returncode or not target.is_file():
        fail(f"{program} printed nothing of {page}; print it from any browser instead")


def main() -> int:
    """Print the report beside itself."""
    page = artifact(root(), "report")
    target = root() / "report.pdf"
    pdf(page.absolute(), target)
    print(target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
