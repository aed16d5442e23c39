"""The same images by the schedulers that a configuration can name, from the same noise.

    python -m benchmarks.schedulers [--run runs/quickstart] [--rounds 3]

PLMS with 50 steps, the published code's, DDIM with 50, and DPM-Solver++ (second order, multistep)
with 20, the quickstart's, and 12. They decode class names and, where `--run` is a run of the
quickstart, its outlier embeddings, whose images its plain classifier then reads. Writes
`schedulers.png` and `schedulers.json` to `benchmarks/results/`:

- `seconds` of one batch, the median of paired rounds;
- `difference`: mean absolute pixel difference to PLMS, of images in [0, 1];
- `read_as_asked`: share of the images by name that the classifier gives to the class asked for.
"""

import json
import runpy
from pathlib import Path

import jax
import numpy as np

from benchmarks.paired import RESULTS, compare, parser
from dream_jax.checks import check
from dream_jax.data.images import Images
from dream_jax.decoding.prompts import plain_prompt, prompt_with_placeholder
from dream_jax.detector.methods import PLAIN
from dream_jax.environment import use_compilation_cache
from dream_jax.evaluation.report.image_sheets import Sheet
from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator
from dream_jax.generator.stable_diffusion import Decoder
from dream_jax.pipeline import make_run
from dream_jax.settings import DecodingSettings
from dream_jax.training import devices

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.py"
PLMS = "PLMS, 50 steps"
CONTENDERS = {  # the quickstart's first
    "DPM-Solver++, 20 steps": ("dpmsolver++", 20),
    "DPM-Solver++, 12 steps": ("dpmsolver++", 12),
    "DDIM, 50 steps": ("ddim", 50),
    PLMS: ("plms", 50),
}
BY_NAME, OUTLIERS = 200, 50  # images compared
SHOWN = 6  # outliers in the picture


def outlier_embeddings(run: Path) -> np.ndarray:
    """(classes, n, width) of a finished run, or one line of print and none per class."""
    path = run / "embeddings" / "outliers.npz"
    if not path.exists():
        print(f"{path} is missing: class names only, and nobody to read them (see --run)")
        return np.zeros((0, 0, 0), np.float32)
    with np.load(path) as file:
        return file["embeddings"]


def prompts(
    decoding: DecodingSettings, generator, names, embeddings
) -> tuple[np.ndarray, np.ndarray]:
    """(ids, embeddings) of the images by name, then of the outliers, each class in turn."""
    labels = np.arange(BY_NAME + OUTLIERS * bool(len(embeddings))) % len(names)
    ids = [plain_prompt(generator, decoding.id_prompt, names[y]) for y in labels[:BY_NAME]]
    vectors = np.zeros((len(labels), generator.table.shape[1]), np.float32)
    for i, y in enumerate(labels[BY_NAME:]):
        ids.append(prompt_with_placeholder(generator, decoding.prompts[0], names[y]))
        vectors[BY_NAME + i] = embeddings[y, i]
    return np.stack(ids), vectors


def picture(images: dict[str, np.ndarray], names, path: Path) -> None:
    """A row for each scheduler, a column for each prompt."""
    rows = list(reversed(images))
    outliers = images[PLMS][BY_NAME : BY_NAME + SHOWN]
    sheet = Sheet(rows=rows, columns=len(names) + len(outliers), split=len(names))
    for row, who in enumerate(rows):
        for column, image in enumerate(images[who][: len(names)]):
            sheet.put(row, column, image)
        for column, image in enumerate(images[who][BY_NAME : BY_NAME + SHOWN]):
            sheet.put(row, len(names) + column, image)
    shown = [*names, *(f"outlier near {name}" for name in names[: len(outliers)])]
    for column, name in enumerate(shown):
        sheet.head(column, name, wrap=True)
    sheet.save(path)


def main():
    flags = parser(__doc__, rounds=3)
    flags.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="a finished run")
    args = flags.parse_args()
    use_compilation_cache()
    devices.use_cores()
    settings = check(runpy.run_path(str(QUICKSTART))["get_config"]())
    run = make_run(settings, args.run)
    decoding, names = settings.decoding, run.work("learn").train.class_names
    embeddings = outlier_embeddings(args.run)

    generator = load_generator(settings.generator.path)
    decoders = {}
    for who, (scheduler, steps) in CONTENDERS.items():
        sizes = (decoding.batch_size, decoding.vae_batch_size)
        sampling = Sampling(scheduler, steps, decoding.guidance, *sizes)
        decoders[who] = Decoder(generator, sampling, image_shape=None)
        decoders[who].fit(decoding.batch_size)
    ids, vectors = prompts(decoding, generator, names, embeddings)
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), len(ids))))

    def batch(decoder: Decoder, start: int) -> jax.Array:
        rows = slice(start, start + decoding.batch_size)
        return decoder(ids[rows], vectors[rows], keys[rows])

    result = compare(
        "schedulers",
        f"{decoding.batch_size} images of the miniature generator",
        {who: lambda decoder=decoder: batch(decoder, 0) for who, decoder in decoders.items()},
        args.rounds,
        {"batch_size": decoding.batch_size, "guidance": decoding.guidance},
        work=(decoding.batch_size, "images"),
    )
    images = {}
    for who, decoder in decoders.items():
        starts = range(0, len(ids), decoding.batch_size)
        parts = [
            devices.unshard(batch(decoder, s), min(decoding.batch_size, len(ids) - s))
            for s in starts
        ]
        images[who] = np.concatenate(parts)

    result["compared"] = {"by_name": BY_NAME, "outliers": len(ids) - BY_NAME}
    result["difference"] = {
        who: float(np.abs(i - images[PLMS]).mean()) for who, i in images.items()
    }
    if (args.run / "classifier" / PLAIN).exists():
        asked = np.arange(BY_NAME) % len(names)
        classifier = run.classifier(PLAIN, settings.seed)
        result["read_as_asked"] = {
            who: float(np.mean(classifier.logits(Images.of(i[:BY_NAME])).argmax(-1) == asked))
            for who, i in images.items()
        }
    print(f"{'':24}{'ms / image':>12}{'difference':>12}{'read as asked':>15}")
    for who, seconds in result["seconds"].items():
        read = result.get("read_as_asked", {}).get(who)
        read = f"{read:14.1%}" if read is not None else f"{'–':>14}"
        per_image = 1e3 * seconds / decoding.batch_size
        print(f"{who:24}{per_image:12.1f}{result['difference'][who]:12.4f}{read:>15}")
    (RESULTS / "schedulers.json").write_text(json.dumps(result, indent=2) + "\n")
    picture(images, names, RESULTS / "schedulers.png")
    print(f"picture: {RESULTS / 'schedulers.png'}")


if __name__ == "__main__":
    main()
