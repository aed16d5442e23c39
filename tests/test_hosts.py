"""Several processes: how they share work out, and whole runs of two on loopback."""

import os
import shutil
import socket
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from slow import takes_a_minute

from dream_jax import pipeline
from dream_jax.data.parts import read_decoded, written_images
from dream_jax.errors import UserError
from dream_jax.files import PARTIAL, read_json, read_npz
from dream_jax.training import devices, hosts
from tests.soak.results import read as lasting_results

KINDS = {"outliers": 20, "by_name": 10, "by_name_test": 10}
# Devices and processes sum gradients in different orders, and training makes the rounding errors
# grow. At a low learning rate features then differ by 6e-7 of 2, scores by 3e-4 of 2.4 and metrics
# by 3e-4; at the toy's own rate of 0.1 features differ by 0.05 of 13 after the same 25 steps, and
# the sampler keeps other candidates.
FLAGS = [
    "--config.latent_space.optimizer.learning_rate=0.001",
    "--config.classifier.optimizer.learning_rate=0.001",
]
FEATURES, EMBEDDINGS, SCORES, METRICS = 1e-5, 1e-6, 3e-3, 0.02

# How work is shared out.


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("total", [0, 1, 5, 8, 100])
def test_shares_are_all_of_it_in_order(total, processes):
    shares = [hosts.share_of(total, processes, process) for process in range(processes)]
    assert [row for share in shares for row in range(total)[share]] == list(range(total))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) == hosts.share_size(total, processes)
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_processes_take_the_rows_that_one_would_give_its_devices(count):
    """`shard_rows` of two processes, one behind the other, is that of one with all devices."""
    rows = np.random.default_rng(count).permutation(count)

    def split(processes: int) -> list[dict]:
        layouts = [devices.Layout(4, processes, process) for process in range(processes)]
        return [devices.shard_rows(rows, layout) for layout in layouts]

    (whole,) = split(1)
    halves = split(2)
    for name in ("rows", "mask", "position"):
        assert np.array_equal(np.concatenate([half[name] for half in halves]), whole[name])
    flat = {name: array.ravel() for name, array in whole.items()}
    assert np.array_equal(flat["rows"][:count], rows)
    assert np.all(flat["rows"][count:] == rows[0])
    assert flat["mask"].sum() == count
    assert np.array_equal(flat["position"], np.arange(len(flat["position"])))


def test_one_process_does_not_communicate():
    assert (hosts.count(), hosts.index(), hosts.is_main()) == (1, 0, True)
    part = np.arange(3)
    assert hosts.gather(part, 3) is part
    value = {"anything": part}  # no JSON
    assert hosts.from_main(lambda: value) is value
    hosts.barrier("nobody else")
    hosts.check_same([1], "settings")


ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture
def connections(monkeypatch):
    """What `jax.distributed.initialize` is asked for, in an environment that asks for nothing."""
    for name in list(os.environ):
        if name in ENVIRONMENT or name.startswith(("SLURM_", "OMPI_", "TPU_")):
            monkeypatch.delenv(name)
    asked = []
    monkeypatch.setattr("jax.distributed.initialize", lambda **settings: asked.append(settings))
    return asked


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("host:1", 2, None), "--process_id: not given; several processes need all of"),
        ((None, 2, 0), "--coordinator: not given"),
        ((None, None, 1), "--coordinator, --processes: not given"),
        (("host:1", 2, 2), "--process_id is 2 and --processes is 2; "),
        (("host:1", 2, -1), "--process_id is -1"),
        (("host:1", 0, 0), "--processes is 0"),
        (("host", 2, 0), "--coordinator is 'host'; it must be host:port"),
        (("host:many", 2, 0), "--coordinator is 'host:many'"),
    ],
)
def test_incomplete_or_impossible_flags_are_named(connections, arguments, line):
    with pytest.raises(UserError) as caught:
        hosts.initialize(*arguments)
    assert line in str(caught.value)
    assert not connections


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node1",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ((None, None, None), {}, None),
        (("host:1", 1, 0), {}, None),
        ((None, None, None), SLURM | {"SLURM_NTASKS": "1"}, None),
        ((None, None, None), {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # no task of it
        ((None, None, None), SLURM | {"SLURM_NTASKS": "4"}, {"coordinator_address": None}),
        (("auto", None, None), {}, {}),
        ((None, None, None), {"TPU_WORKER_HOSTNAMES": "a,b"}, {"coordinator_address": None}),
        ((None, None, None), {"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        (("host:1", 2, 1), {}, {"coordinator_address": "host:1", "process_id": 1}),
        (
            (None, None, None),
            dict(zip(ENVIRONMENT, ("host:1", "2", "1"), strict=True)),
            {"coordinator_address": "host:1", "num_processes": 2, "process_id": 1},
        ),
    ],
)
def test_connects_only_where_asked(connections, monkeypatch, arguments, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    hosts.initialize(*arguments)
    if expected is None:
        assert not connections
    else:
        assert len(connections) == 1 and expected.items() <= connections[0].items()


# Whole runs.


def start(toy, workdir, *, flags=(), flags_of=((), ())) -> list:
    """Two processes of one run; `flags_of` has further flags of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = [f"--coordinator=127.0.0.1:{port}", "--processes=2", *FLAGS, *flags]
    return [
        toy.start(workdir, [*together, f"--process_id={i}", *own], devices=2)
        for i, own in enumerate(flags_of)
    ]


def outputs(processes) -> list[str]:
    """What they print until they end."""
    try:
        return [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


class Runs(NamedTuple):
    """Whole runs, not to be changed: of one process with four devices, of two with two each."""

    one: Path
    two: Path
    outputs: list[str]


@pytest.fixture(scope="module")
def runs(toy, tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("hosts")
    toy.finish(folder / "one", FLAGS, devices=4)
    processes = start(toy, folder / "two")
    texts = outputs(processes)
    for process, text in zip(processes, texts, strict=True):
        assert process.returncode == 0, text[-3000:]
    return Runs(folder / "one", folder / "two", texts)


@takes_a_minute
def test_two_processes_get_the_metrics_of_one(runs):
    one, two = (read_json(folder / "metrics.json") for folder in (runs.one, runs.two))
    assert one["methods"].keys() == two["methods"].keys()
    flat_one, flat_two = (
        {
            (method, name, measure): value
            for method, entry in metrics["methods"].items()
            for name, of_set in (entry["ood"] | {"kept": entry["kept"]}).items()
            for measure, value in of_set.items()
        }
        | {
            (method, "accuracy"): entry["id_accuracy"]
            for method, entry in metrics["methods"].items()
        }
        for metrics in (one, two)
    )
    assert flat_one.keys() == flat_two.keys()
    for name, value in flat_one.items():
        assert flat_two[name] == pytest.approx(value, abs=METRICS), name


@takes_a_minute
def test_two_processes_get_the_features_embeddings_and_scores_of_one(runs):
    for path, tolerance in {
        "latent_space/features.npz": FEATURES,
        "embeddings/outliers.npz": EMBEDDINGS,
        "evaluation/cross_entropy/scores_energy.npz": SCORES,
        "evaluation/dream_ood/scores_energy.npz": SCORES,
    }.items():
        one, two = (read_npz(folder / path) for folder in (runs.one, runs.two))
        assert one.keys() == two.keys()
        for name, expected in one.items():
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(two[name], expected, atol=tolerance, err_msg=name)
            else:
                assert np.array_equal(two[name], expected), name


@takes_a_minute
@pytest.mark.parametrize("kind", KINDS)
def test_each_process_decodes_its_half_of_the_images(runs, kind):
    one, two = (folder / "images" / kind for folder in (runs.one, runs.two))
    parts = written_images(two)
    assert [part.name for part in parts] == ["part-00000", "part-00001"]
    assert [len(names) for names in parts.values()] == 2 * [KINDS[kind] // 2]
    assert [part.name for part in written_images(one)] == ["part-00000"]
    (found, rows), (expected, rows_of_one) = (
        read_decoded(f, KINDS[kind], 32, 1, 2**20) for f in (two, one)
    )
    assert rows == rows_of_one
    assert np.abs(np.asarray(found) - np.asarray(expected)).max() <= 1 / 255 + 1e-6


@takes_a_minute
def test_process_0_speaks_and_writes(runs):
    stages = [line for line in runs.outputs[0].splitlines() if line.startswith("── ")]
    assert len(stages) == 16  # four kinds of images and round trips, two classifiers, metrics ...
    assert "FPR95" in runs.outputs[0]
    assert "──" not in runs.outputs[1] and "FPR95" not in runs.outputs[1]
    names = [lasting_results(folder).keys() for folder in (runs.one, runs.two)]
    assert names[0] == names[1]


@takes_a_minute
def test_two_processes_that_find_a_finished_run_show_it_and_end(toy, runs, tmp_path):
    workdir = tmp_path / "finished"
    shutil.copytree(runs.two, workdir)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    processes = start(toy, workdir)
    texts = outputs(processes)
    assert [process.returncode for process in processes] == [0, 0], texts
    assert "FPR95" in texts[0] and "──" not in texts[0]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@takes_a_minute
def test_killed_decode_is_continued_by_fewer_processes_with_the_missing_images(toy, runs, tmp_path):
    """Two processes are killed; one with four devices decodes what they did not."""
    workdir, folder = tmp_path / "killed", tmp_path / "killed" / "images" / "outliers"
    for part in ("latent_space", "embeddings"):
        shutil.copytree(runs.two / part, workdir / part)
    flags = ["--stages=decode", "--config.decoding.outliers=100"]
    counts = KINDS | {"outliers": 100}
    processes = start(toy, workdir, flags=flags)
    finished = "part-*/*/[!.]*.png"  # a kill may leave a half-written image, under a dot name
    try:
        while len(list(folder.glob(finished))) < 4:
            assert all(process.poll() is None for process in processes), outputs(processes)
            time.sleep(0.005)
    finally:
        for process in processes:
            process.kill()  # SIGKILL: nothing is cleaned up
        outputs(processes)
    assert not read_json(workdir / "images" / "outliers" / "stage.json")["done"]
    before = {path: path.stat().st_mtime_ns for path in folder.glob(finished)}
    assert 4 <= len(before) < counts["outliers"], "killed too late"
    partial = next(iter(before)).with_name(f"{PARTIAL}000099.png")
    partial.write_bytes(b"\x89PNG")

    toy.finish(workdir, [*FLAGS, *flags], devices=4)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(folder.rglob(f"{PARTIAL}*"))
    for kind, count in counts.items():
        names = [n for part in written_images(workdir / "images" / kind).values() for n in part]
        assert len(names) == len(set(names)) == count
        found, rows = read_decoded(workdir / "images" / kind, count, 32, 1, 2**20)
        # Which images there are more does not change the first ones.
        expected, rows_of_two = read_decoded(runs.two / "images" / kind, KINDS[kind], 32, 1, 2**20)
        assert rows[: KINDS[kind]] == rows_of_two
        difference = np.abs(found[: KINDS[kind]] - np.asarray(expected))
        assert difference.max() <= 1 / 255 + 1e-6


def test_folder_that_is_not_shared_is_named(toy, tmp_path, monkeypatch):
    """Process 1 looks into a folder of its own, where process 0 writes nothing."""
    monkeypatch.setattr(hosts, "is_main", lambda: False)
    with pytest.raises(UserError, match="must be a folder that all processes share"):
        pipeline.run(toy.config(), tmp_path / "run")


def test_processes_with_other_settings_are_told(toy, tmp_path):
    workdir = tmp_path / "run"
    processes = start(toy, workdir, flags_of=([], ["--config.seed=1"]))
    for process, text in zip(processes, outputs(processes), strict=True):
        assert process.returncode == 2
        errors = [line for line in text.splitlines() if line.startswith("error:")]
        assert errors == [
            "error: settings: those of process 1 are not those of process 0; start all processes "
            "with the same ones"
        ]
    assert not workdir.exists()
