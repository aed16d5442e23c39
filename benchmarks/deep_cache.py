"""Pictures with deep features reused from step to step, against those without, from the same noise.

    python -m benchmarks.deep_cache [--generators glyphs photos] [--steps 20] [--rounds 3]

The project's two generators paint the classes that they know best, with features computed at each
step (`decoding.cache_interval` of 1) and at every second, third and fifth. Prints, in one run of
paired rounds, the time of a picture, how many times as fast that is, the UNet's work in GFLOP, and
the mean absolute difference of the pictures, whose pixels lie in [0, 1]. For comparison, the last
row has every feature computed, at half as many steps. Writes `deep_cache_<generator>.json` and
`.png`, a row of pictures for each, to `benchmarks/results/`.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.paired import RESULTS, compare, parser
from dream_jax.decoding.prompts import plain_prompt
from dream_jax.environment import use_compilation_cache
from dream_jax.evaluation.report.image_sheets import Sheet
from dream_jax.generator.deep_cache import unet_pass
from dream_jax.generator.interface import DeepCache, Sampling
from dream_jax.generator.load import load_generator
from dream_jax.generator.stable_diffusion import Decoder
from dream_jax.training import devices

WEIGHTS = Path(__file__).parents[1] / "dream_jax" / "miniature" / "weights"
DIGITS = "zero one two three four five six seven eight nine"
PHOTOS = "airplane automobile bird cat deer dog frog horse ship truck"
WORLDS = {  # prompt, names and guidance, as in the quickstarts
    "glyphs": ("a handwritten {name}", DIGITS.split(), 3.0),
    "photos": ("a photo of the {name}", PHOTOS.split(), 2.5),
}
EACH = "each step"


def work(generator, branch: int, passes: int = 2) -> tuple[float, float]:
    """GFLOP of the whole UNet and of its part above a branch, for a picture and a step."""
    unet = generator.pipeline.unet
    sample = np.zeros((passes, *generator.latent_shape), np.float32)
    positions = generator.prompt_ids(()).size
    text = np.zeros((passes, positions, generator.table.shape[1]), np.float32)

    def run(params, deep):
        return unet.apply({"params": params}, sample, *times, deep, branch, method=unet_pass)

    times = np.zeros(passes, np.int32), text
    params = generator.params["unet"]
    deep = jax.eval_shape(run, params, None)[1]
    programs = [jax.jit(run).lower(params, features) for features in (None, deep)]
    whole, part = [program.cost_analysis()["flops"] / 1e9 for program in programs]
    return whole, part


def samplings(args, guidance: float) -> dict[str, Sampling]:
    """How the pictures of each row are sampled."""

    def sampling(steps: int, interval: int) -> Sampling:
        cache = DeepCache(interval, args.branch)
        sizes = (args.images, args.images)
        return Sampling(args.scheduler, steps, guidance, *sizes, cache=cache)

    made = {EACH: sampling(args.steps, 1)}
    made |= {f"every {n} steps": sampling(args.steps, n) for n in args.intervals}
    return made | {"half the steps": sampling(max(2, args.steps // 2), 1)}


def measure(world: str, args) -> None:
    prompt, names, guidance = WORLDS[world]
    generator = load_generator(str(WEIGHTS / world))
    labels = np.arange(args.images) % len(names)
    ids = np.stack([plain_prompt(generator, prompt, names[label]) for label in labels])
    vectors = np.zeros((len(ids), generator.table.shape[1]), np.float32)
    keys = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), len(ids))))
    settings = samplings(args, guidance)
    decoders = {who: Decoder(generator, given, None) for who, given in settings.items()}
    for decoder in decoders.values():
        decoder.fit(len(ids))
    calls = {who: lambda d=d: d(ids, vectors, keys)[0] for who, d in decoders.items()}
    fast = next(who for who in calls if who != EACH)  # ours, to which the others are compared
    sizes = {"images": len(ids), "steps": args.steps, "scheduler": args.scheduler}
    result = compare(
        f"deep_cache_{world}",
        f"{len(ids)} pictures of `{world}`, {args.steps} steps; deep features {fast}",
        {fast: calls.pop(fast), **calls},
        args.rounds,
        sizes | {"branch": args.branch, "guidance": guidance},
        (len(ids), "images"),
    )
    images = {
        who: devices.unshard(d(ids, vectors, keys)[0], len(ids)) for who, d in decoders.items()
    }
    result |= table(images, result["seconds"], settings, work(generator, args.branch))
    (RESULTS / f"deep_cache_{world}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"picture: {picture(images, names, RESULTS / f'deep_cache_{world}.png')}\n")


def table(images, seconds, settings, flops: tuple[float, float]) -> dict[str, Any]:
    """Prints a row for each setting and returns its columns."""
    columns: dict[str, dict[str, float]] = {"difference": {}, "speed": {}, "gflop": {}}
    print(f"{'deep features':16}{'ms/image':>10}{'speed':>8}{'GFLOP':>8}{'difference':>12}")
    for who, made in images.items():
        given = settings[who]
        whole = -(-given.steps // given.cache.interval)
        columns["difference"][who] = float(np.abs(made - images[EACH]).mean())
        columns["speed"][who] = seconds[EACH] / seconds[who]
        columns["gflop"][who] = whole * flops[0] + (given.steps - whole) * flops[1]
        print(
            f"{who:16}{1e3 * seconds[who] / len(made):10.1f}{columns['speed'][who]:7.2f}×"
            f"{columns['gflop'][who]:8.2f}{columns['difference'][who]:12.4f}"
        )
    return columns


def picture(images: dict[str, np.ndarray], names: list[str], path: Path) -> Path:
    """Draws a row for each setting, two pictures of each class, from the same noise."""
    shown = min(2 * len(names), len(images[EACH]))
    sheet = Sheet(rows=list(images), columns=shown, split=shown)
    for row, made in enumerate(images.values()):
        for column, image in enumerate(made[:shown]):
            sheet.put(row, column, image)
    for column in range(shown):
        sheet.head(column, names[column % len(names)], wrap=True)
    sheet.corner("deep features at")
    return sheet.save(path)


def main() -> None:
    flags = parser(__doc__, rounds=3)
    flags.add_argument("--generators", nargs="+", choices=WORLDS, default=list(WORLDS))
    flags.add_argument("--scheduler", default="dpmsolver++", help="%(default)s")
    flags.add_argument("--steps", type=int, default=20, help="%(default)s")
    flags.add_argument("--intervals", type=int, nargs="+", default=[2, 3, 5])
    flags.add_argument("--branch", type=int, default=0, help="decoding.cache_branch (%(default)s)")
    flags.add_argument("--images", type=int, default=40, help="in a batch (%(default)s)")
    args = flags.parse_args()
    use_compilation_cache()
    devices.use_cores()
    for world in args.generators:
        measure(world, args)


if __name__ == "__main__":
    main()
