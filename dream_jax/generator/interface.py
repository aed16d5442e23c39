"""What the stages need of a text-to-image pipeline; another kind implements `Generator`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from dream_jax.data.images import Images


class Vocabulary(Protocol):
    """The tokens of a text encoder and their embeddings, which stage ① aligns images with.

    Attributes:
      table: (vocabulary, width) token embeddings, float32.
    """

    table: Float[np.ndarray, "vocabulary width"]

    def name_ids(self, text: str) -> list[int]:
        """Returns the token ids of a text, without marks of its start and end."""
        ...

    def prompt_ids(self, ids: Sequence[int]) -> Int[np.ndarray, " positions"]:
        """Returns token ids as an int32 prompt: shortened to fit, with marks and padding."""
        ...

    def words(self) -> dict[str, int]:
        """Returns the words of at least three letters that are one token, with its id.

        In alphabetical order.
        """
        ...


@dataclass(frozen=True)
class DeepCache:
    """When deep features are computed, and which ones are deep; see `deep_cache`.

    Attributes:
      interval: 1 computes them at each step, n at every n-th.
      branch: the deepest skip connection that is always computed; 0 is that of conv_in.
    """

    interval: int = 1
    branch: int = 0


NO_CACHE = DeepCache()


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled.

    Attributes:
      scheduler: the name of one of `schedulers.SCHEDULERS`.
      steps: denoising steps.
      guidance: scale of classifier-free guidance.
      batch_size: images at once over the devices of all processes; 0 as many as fit.
      vae_batch_size: images of a batch that are decoded to pixels at once, over the same devices;
        0 as many as fit.
      resize: how pictures are brought to another size, see `resizing`.
      text_noise: scale of the noise that is added to the text encoder's output; 0 adds none.
      cache: which features are reused from step to step.
    """

    scheduler: str
    steps: int
    guidance: float
    batch_size: int
    vae_batch_size: int
    resize: str = "antialiased"
    text_noise: float = 0.0
    cache: DeepCache = NO_CACHE


class Generator(Vocabulary, Protocol):
    """A text-to-image pipeline whose prompts may hold embeddings of one's own."""

    def decode(
        self,
        ids: Int[np.ndarray, "n positions"],
        embeddings: Float[np.ndarray, "n width"] | None,
        keys: jax.Array,
        sampling: Sampling,
        image_shape: tuple[int, int, int] | None = None,
    ) -> Iterator[Float[np.ndarray, "batch H W C"]]:
        """Yields images in [0, 1] of prompts in which an embedding stands for the class's token.

        Args:
          ids: prompts; the id `len(table)` marks the place of the embedding.
          embeddings: one for each prompt, or None for prompts without a placeholder.
          keys: (n,) random keys, one for each image, which depends on no other image.
          sampling: how pictures are sampled.
          image_shape: (H, W, C) to which pictures are brought, by `sampling.resize`; None leaves
            them as they are.

        Raises:
          NotFinite: a picture is not finite; no batch with such a picture is yielded.
        """
        ...

    def round_trip(
        self, images: Images, batch_size: int, progress: str | None, done: int = 0
    ) -> Iterator[UInt8[np.ndarray, "batch H W C"]]:
        """Yields images after the autoencoder and back; each process its share of them.

        Args:
          batch_size: images at once over the devices of all processes; 0 as many as fit.
          progress: title of the progress bar; None shows none.
          done: images of this process's share that are left out, the first ones.

        Raises:
          NotFinite: as for `decode`.
        """
        ...

    def release(self) -> None:
        """Frees the memory that `decode` keeps on the devices for its next call."""
        ...
