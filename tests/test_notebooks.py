"""The notebooks, each run from a clean state on a run at toy size."""

import os

import pytest
import toy as toy_module
from slow import takes_a_minute

QUICK = ("tour", "your_images")
NOTEBOOKS = sorted((toy_module.REPOSITORY / "notebooks").glob("*.ipynb"))
# The toy's ID set is none of the project's: the kernel has to register it.
REGISTER = "import sys; sys.path[:0] = [{!r}, {!r}]; import toy"


@pytest.fixture(scope="module")
def environment(toy_run):
    """Where the notebooks look for runs and for images."""
    runs = f"{toy_run.workdir},{toy_run.workdir.parent / 'other'}"
    (toy_run.workdir.parent / "other").symlink_to(toy_run.workdir)
    variables = {
        "DREAM_JAX_RUN": str(toy_run.workdir),
        "DREAM_JAX_RUNS": runs,
        "DREAM_JAX_IMAGES": str(toy_run.workdir / "images" / "outliers"),
    }
    yield os.environ | variables
    (toy_run.workdir.parent / "other").unlink()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem in QUICK else takes_a_minute)
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs(path, environment):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    book = nbformat.read(path, as_version=4)
    tests = toy_module.REPOSITORY / "tests"
    register = REGISTER.format(str(toy_module.REPOSITORY), str(tests))
    book.cells.insert(0, nbformat.v4.new_code_cell(register))
    client(book, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute(
        env=environment
    )
    shown = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_its_outputs(path):
    nbformat = pytest.importorskip("nbformat")
    assert path.stat().st_size < 1_000_000
    book = nbformat.read(path, as_version=4)
    assert book.cells[0].cell_type == "markdown" and "You will" in book.cells[0].source
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type != "error"
        text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        assert "/tmp" not in text and "/work" not in text and "Warning" not in text
