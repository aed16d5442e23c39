"""What is shown of what workers write to standard error."""

import io
import random

import pytest
from tqdm import tqdm

from dream_jax.workers.screen import Lines


@pytest.mark.parametrize("seed", range(10))
def test_bars_and_lines_are_told_apart(seed):
    """However the stream is cut: warnings are seen once and whole, and no bar as a line."""
    stream = io.StringIO()
    for number in range(3):
        with tqdm(total=4, desc="training", unit="step", file=stream, mininterval=0) as bar:
            for _ in range(4):
                bar.update()
        stream.write(f"a warning, {number}\n\n")
    text, draw, lines, read = stream.getvalue(), random.Random(seed), Lines(), 0
    found, states = [], []
    while read < len(text):
        part = text[read : (read := read + draw.randint(1, 40))]
        more, state = lines.add(part)
        found += more
        states += [state] * bool(state)
    assert found == [f"a warning, {number}" for number in range(3)]
    assert states and all(state.startswith("training"[: len(state)]) for state in states)
    assert any("100%" in state for state in states)


def test_a_line_without_its_end_waits():
    lines = Lines()
    assert lines.add("half a ") == ([], "")
    assert lines.add("line\n") == (["half a line"], "")
