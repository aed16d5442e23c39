"""The benchmark for accelerators, in small sizes on this machine."""

import json

import pytest
from slow import takes_a_minute

from benchmarks import accelerator
from benchmarks.accelerator_works import WORKS


def run(out, *only: str) -> tuple[int, dict]:
    flags = ["--tiny", "--no-rivals", "--seconds=0.01", f"--out={out}", "--peak=1", "--only", *only]
    status = accelerator.main(flags)
    return status, json.loads(out.read_text())["works"]


def test_works_are_measured_and_one_that_fails_is_shown(tmp_path, monkeypatch, capsys):
    def too_large(sizes):
        raise MemoryError("out of memory")

    monkeypatch.setitem(WORKS, "knn", too_large)
    status, works = run(tmp_path / "made" / "out.json", "sampler", "knn", "text_encoder", "vae")
    assert status == 1
    assert works["knn"]["dream_jax"]["failed"] == "MemoryError: out of memory"
    assert "MemoryError: out of memory" in capsys.readouterr().out
    assert list(works) == ["knn", "sampler", "text_encoder", "vae"]
    for name in ("sampler", "text_encoder", "vae"):
        assert works[name]["dream_jax"]["seconds"] > 0
    encoder = works["text_encoder"]["dream_jax"]
    # Of a layer 64 wide: four square products, two to and from 256; attention adds a little.
    products = 2 * 2 * 77 * (4 * 64**2 + 2 * 64 * 256)
    assert products < encoder["flops"] < 1.5 * products
    assert encoder["flops_per_second"] == encoder["flops"] / encoder["seconds"]


@takes_a_minute
def test_training_and_decoding_to_files(tmp_path):
    names = ("resnet34", "unet", "decoding")
    status, works = run(tmp_path / "out.json", *names)
    assert status == 0
    assert tuple(works) == names
    assert all(figures["dream_jax"]["rate"] > 0 for figures in works.values())


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("cpu", None),
    ],
)
def test_peaks(kind, peak):
    assert accelerator.peak_of(kind) == peak
