"""The model card of an exported detector: Markdown with the header that the Hub reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dream_jax.evaluation.report.layouts import GROUP_MEANS, readable
from dream_jax.legible import legible

METRICS = {"fpr95": "FPR95", "auroc": "AUROC", "aupr_in": "AUPR"}

USE = """\
```
python launch/score.py --detector={folder} --images=FOLDER --out=scores.csv --page=scores.html
```

scores a folder of images with JAX and NumPy. From Python, with images as float32 in [0, 1] of the
shape (n, {size}, {size}, {channels}):

```python
from pathlib import Path
from dream_jax.detector_folder.folder import open_folder

detector = open_folder(Path("{folder}"))
made = detector.score(images)  # {{"logits": (n, {classes}), "score": (n,)}}
is_id = made["score"] >= detector.about["thresholds"]["0.95"]
```
"""

LIMITS = """\
- A score says how much an image looks like the ID images that the detector knows. It does not say
  that the predicted class is right.
- A threshold keeps its share of the ID test images. Of images from another source (camera,
  compression, framing) it keeps another share: score some whose class is known, and choose the
  threshold by them.
- What was measured holds for the OOD sets of the table. Other unknown images may be told apart
  better or worse.
- Images are brought to {size} × {size} pixels{grey}. What is lost on the way, the detector does not
  see.
- It knows {classes} classes from {images:,} images, and has the biases of these images.
"""


@dataclass(frozen=True)
class Facts:
    """What the card says.

    Attributes:
      folder: the name of the detector's folder.
      run: the name of the run's configuration.
      title: of the row.
      training, detector: titles and papers, as texts.
      settings: of the training and the detector, by name.
      data: the ID set's name.
      class_names: of the ID classes.
      train_images, test_images: how many there were.
      size, channels: of the images.
      network: in words.
      extra: what the training was shown with the ID images, in words; or "".
      measures: the row's entry in metrics.json, of the seed that was exported.
      tuning: what metrics.json says of the tuning; empty if nothing.
      row: the row's key.
      seed: of the training.
      versions: of packages.
    """

    folder: str
    run: str
    title: str
    training: str
    detector: str
    settings: Mapping[str, Any]
    data: str
    class_names: Sequence[str]
    train_images: int
    test_images: int
    size: int
    channels: int
    network: str
    extra: str
    measures: Mapping[str, Any]
    tuning: Mapping[str, Any]
    row: str
    seed: int
    versions: Mapping[str, str]


def model_card(facts: Facts) -> str:
    """Returns the card as text."""
    classes = ", ".join(_inline(name) for name in facts.class_names)
    names = {"size": facts.size, "channels": facts.channels, "classes": len(facts.class_names)}
    grey = ", grey" if facts.channels == 1 else ""
    sections = {
        "Use": USE.format(folder=facts.folder, **names).rstrip(),
        "Data": f"ID set `{facts.data}`: {facts.train_images:,} training and {facts.test_images:,} "
        f"test images, {facts.size} × {facts.size} pixels{grey}, of {len(facts.class_names)} "
        f"classes: {classes}.",
        "Training": _training(facts),
        "What it reaches": _metrics(facts),
        "What it was tuned on": _tuning(facts),
        "Limits": LIMITS.format(grey=grey, images=facts.train_images, **names).rstrip(),
    }
    title = f"# {_inline(facts.title)} on {_inline(facts.data)}"
    intro = (
        f"A detector of out-of-distribution (OOD) images: a classifier of "
        f"{len(facts.class_names)} classes, and a score that is high for images like those that it "
        f"was trained on (in-distribution, ID). Row `{facts.row}` of the run `{facts.run}` of "
        f"Dream-OOD in JAX."
    )
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items())
    return f"---\n{_header(facts)}---\n\n{title}\n\n{intro}\n\n{body}\n"


def _header(facts: Facts) -> str:
    """Returns the metadata as YAML, of which JSON's texts and lists are a part."""
    name = f"{facts.run}-{facts.row}".replace("/", "-")
    lines = [
        "library_name: jax",
        "pipeline_tag: image-classification",
        "tags: [out-of-distribution-detection, dream-ood, jax, stablehlo]",
        "model-index:",
        f"- name: {json.dumps(name)}",
        "  results:",
    ]
    lines += _result(
        facts.data, "image-classification", {"accuracy": facts.measures["id_accuracy"]}
    )
    for ood, values in facts.measures["ood"].items():
        if ood != "mean":
            own = {metric: values[metric] for metric in METRICS}
            lines += _result(f"{facts.data} against {ood}", "out-of-distribution-detection", own)
    return "\n".join(lines) + "\n"


def _result(dataset: str, task: str, metrics: Mapping[str, float]) -> list[str]:
    text = json.dumps(legible(dataset), ensure_ascii=False)
    lines = [
        f"  - task: {{type: {task}}}",
        f"    dataset: {{name: {text}, type: {text}}}",
        "    metrics:",
    ]
    return lines + [
        f"    - {{type: {name}, value: {value:.6g}}}" for name, value in metrics.items()
    ]


def _training(facts: Facts) -> str:
    lines = [f"- Network: {facts.network}.", f"- Training: {facts.training}."]
    if facts.extra:
        lines.append(f"- With the ID images it was shown {facts.extra}.")
    lines.append(f"- Score: {facts.detector}.")
    if facts.settings:
        settings = ", ".join(f"`{name}={value}`" for name, value in facts.settings.items())
        lines.append(f"- Settings: {settings}.")
    packages = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return "\n".join([*lines, f"- Seed {facts.seed}; {packages}."])


def _metrics(facts: Facts) -> str:
    rows = ["| OOD set | FPR95 ↓ | AUROC ↑ | AUPR ↑ |", "|---|--:|--:|--:|"]
    groups = facts.measures.get("groups", {})
    means = {GROUP_MEANS[group]: values for group, values in groups.items()}
    for name, values in (facts.measures["ood"] | means).items():
        numbers = " | ".join(f"{100 * values[metric]:.1f}" for metric in METRICS)
        rows.append(f"| {_inline(readable(name))} | {numbers} |")
    accuracy = f"ID accuracy on the test images: {facts.measures['id_accuracy']:.1%}."
    note = (
        "In %, with ID as the positive class. FPR95 is the share of OOD images that pass the "
        "threshold that keeps 95 % of the ID test images."
    )
    return "\n".join(rows) + f"\n\n{note} {accuracy}"


def _tuning(facts: Facts) -> str:
    own = facts.tuning.get("rows", {}).get(facts.row)
    if not own:
        return "Nothing: its settings are the papers', or were set by hand."
    chosen = ", ".join(f"`{name}={value}`" for name, value in own["chosen"].items())
    if not own["candidates"]:
        return f"Nothing: {chosen} were set by hand."
    sets = facts.tuning["sets"]
    both = [readable(name) for name in sets if name in facts.measures["ood"]]
    note = "None of these sets is in the table above."
    if both:
        note = f"Of these sets, the table above has {', '.join(both)}: there it flatters."
    return (
        f"{chosen}: the best of {own['candidates']} candidates on the OOD sets {', '.join(sets)}, "
        f"with seed {facts.tuning['seed']}. {note}"
    )


def _inline(text: str) -> str:
    """Returns a text as it stands in a line of Markdown."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return legible(text)
