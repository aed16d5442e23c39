"""What a person can do with a finished run: the last lines of a launch program."""

import shlex
from pathlib import Path

NOTEBOOK = "notebooks/tour.ipynb"


def next_steps(workdir: Path) -> str:
    """Returns lines that say what to do next; "" where the run has no report yet."""
    page, images = workdir / "report" / "index.html", workdir / "images" / "by_name_test"
    if not page.exists():
        return ""
    arguments = shlex.join([f"--run={workdir}", f"--images={images}"])
    return (
        "next:\n"
        f"  open {page} in a browser: figures, curves, a gallery of the outliers\n"
        f"  score images, these or your own: make score ARGS={shlex.quote(arguments)}\n"
        f"  look into the run: {NOTEBOOK}"
    )
