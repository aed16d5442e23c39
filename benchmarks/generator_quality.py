"""How good a generator's pictures of the ID classes are, seen by a run's plain classifier.

    python -m benchmarks.generator_quality --run=RUN [--count 500] [--guidance 2.5] [--sheet FILE]

`RUN` is the folder of a run that has a plain classifier (row `energy`); its generator, prompt and
sampling are measured. Prints

- the share of pictures that the classifier reads as the class asked for, and of real test images;
  of each class, or of the twenty that are read worst;
- Fréchet distances, in the features of the classifier, from the real test images to the pictures,
  to the test images after the autoencoder and back, and, for the scale, to training images; all of
  equally many images;
- the root mean square difference of pixels from the pictures, and from real test images, to the
  nearest training image: a generator that copies has much smaller ones.

The sheet shows the pictures nearest to training images, each with that image on its right.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import dream_jax
from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images
from dream_jax.generator.interface import DeepCache, Sampling
from dream_jax.generator.load import load_generator
from dream_jax.miniature import quality
from dream_jax.training import devices

SHOWN = 12  # pairs on the sheet
LISTED = 20  # classes


def flags() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--run", required=True)
    made.add_argument("--count", type=int, default=500, help="pictures (%(default)s)")
    made.add_argument("--guidance", type=float, help="if not the run's")
    made.add_argument("--sheet", type=Path)
    return made


def main() -> None:
    args = flags().parse_args()
    run = dream_jax.load_run(args.run)
    decoding = run.settings.decoding
    sampling = Sampling(
        run.settings.generator.scheduler,
        decoding.steps,
        decoding.guidance if args.guidance is None else args.guidance,
        decoding.batch_size,
        decoding.vae_batch_size,
        cache=DeepCache(decoding.cache_interval, decoding.cache_branch),
    )
    generator = load_generator(run.settings.generator.path, precision="float32")
    made = quality.by_name(generator, decoding.id_prompt, run.class_names, args.count, sampling)
    classifier = run.classifier("energy")

    def seen(images):
        given = Images.of(np.asarray(images))
        unread = np.zeros(len(given), np.int32)  # labels, of which features do not depend
        made = classifier.fit_data(ImageSet("pictures", given, unread), head=False)
        return classifier.logits(given), made.features

    test, test_labels = run.images("test")
    train, _ = run.images("train")
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(test), args.count, replace=False))
    real = test[chosen]
    trips = np.concatenate(list(generator.round_trip(Images.of(real), 50, None)))
    other = train[np.sort(rng.choice(len(train), args.count, replace=False))]
    logits, features = seen(made.images)
    shares = quality.legibility(logits, made.labels)
    print(f"{args.count} pictures, {sampling.steps} steps, guidance {sampling.guidance:g}")
    for label, share in sorted(shares.items(), key=lambda item: item[1])[:LISTED]:
        print(f"  {run.class_names[label]:14} {100 * share:5.1f} %")
    real_logits, real_features = seen(real)
    right = np.mean(real_logits.argmax(-1) == test_labels[chosen])
    print(f"read as asked: {100 * np.mean(list(shares.values())):.1f} %; real: {100 * right:.1f} %")
    for name, images in (("pictures", None), ("round trips", trips), ("training images", other)):
        found = features if images is None else seen(images)[1]
        distance = quality.frechet_distance(found, real_features)
        print(f"Fréchet distance to test images, {name}: {distance:.2f}")
    everything = train[:]
    nearest, distance = quality.nearest(made.images, everything)
    _, usual = quality.nearest(real, everything)
    for name, values in (("pictures", distance), ("test images", usual)):
        low, middle = np.quantile(values, (0.01, 0.5))
        print(f"to the nearest training image, {name}: median {middle:.3f}, 1 % below {low:.3f}")
    if args.sheet:
        order = np.argsort(distance)[:SHOWN]
        pairs = [np.concatenate([made.images[i], everything[nearest[i]]], 1) for i in order]
        rows = [np.concatenate(pairs[i : i + 4], 1) for i in range(0, SHOWN, 4)]
        sheet = Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8).squeeze())
        sheet.resize((4 * sheet.width, 4 * sheet.height), Image.Resampling.NEAREST).save(args.sheet)


if __name__ == "__main__":
    devices.use_cores()
    main()
