"""The settings of the sampler, for outliers and for inliers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from dream_jax.errors import UserError
from dream_jax.results import FROM_TEXT
from dream_jax.rules import above, one_of, whole
from dream_jax.settings import InlierSettings, Noise, SamplingSettings, Selection, Settings

RULES = {
    **dict.fromkeys(("k", "boundary", "per_round", "candidates", "keep", "rounds"), whole(1)),
    "scale": above(0),
    "noise": one_of(get_args(Noise)),
    "selection": one_of(get_args(Selection)),
}
# Values of `sampling.method`: noise around features, chosen by d_k, and words.
BY_DISTANCE, VOCABULARY = ("knn", "core"), "vocabulary"


@dataclass(frozen=True)
class SamplerSettings:
    """Settings of the sampler, checked when made.

    Attributes:
      k: the neighbour whose distance is d_k; a feature of the class counts itself first.
      boundary: size m of the boundary set, the features with the largest d_k; unused for inliers.
      per_round: features drawn in a round; all that are eligible, if they are fewer.
      candidates: number L of candidates around each drawn feature.
      scale: s, the standard deviation of the noise in each dimension (features are unit vectors).
      keep: candidates kept for each drawn feature.
      rounds: number of rounds.
      largest: True for outliers, which keep the largest d_k around the boundary set; False for
        inliers, which keep the smallest around any feature.
      noise: "own", as in the paper, gives each drawn feature L noise vectors of its own; with
        "shared", as in the published code, the features of a round share L.
      selection: "paper" keeps for each drawn feature its own best candidates; "published" repeats
        the choice of the published code, see `published_round`, for which the noise is shared.
      core: whether outliers are sampled around the core of the class, the m features with the
        smallest d_k, in the boundary set's place.

    Raises:
      UserError: a value is not allowed; the message names it as `sampling.<attribute>`, or
        `inliers.<attribute>`.
    """

    k: int = 300
    boundary: int = 50
    per_round: int = 50
    candidates: int = 1500
    scale: float = 0.07
    keep: int = 2
    rounds: int = 100
    largest: bool = True
    noise: str = "own"
    selection: str = "paper"
    core: bool = False

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            value = getattr(self, name)
            if not rule.holds(value):
                raise UserError(f"{self.field(name)} is {value!r}; it must be {rule.allowed}")
        if self.keep > self.candidates:
            raise UserError(
                f"{self.field('keep')} is {self.keep}; it must be at most {self.candidates}, the "
                f"number of {self.field('candidates')}"
            )
        _check_noise(self.field("noise"), self.noise, self.selection)

    @classmethod
    def of_outliers(cls, sampling: SamplingSettings) -> SamplerSettings:
        """Returns the settings of outlier embeddings."""
        return cls(
            k=sampling.k,
            boundary=sampling.boundary,
            per_round=sampling.per_round,
            candidates=sampling.candidates,
            scale=sampling.scale,
            keep=sampling.keep,
            rounds=sampling.rounds,
            noise=sampling.noise,
            selection=sampling.selection,
            core=sampling.method == "core",
        )

    @classmethod
    def of_inliers(cls, inliers: InlierSettings, sampling: SamplingSettings) -> SamplerSettings:
        """Returns the settings of inlier embeddings (Dream-ID), which have no boundary set.

        Args:
          inliers: of the inliers alone.
          sampling: of the outliers, of which `noise` and `selection` hold for inliers too.
        """
        return cls(
            k=inliers.k,
            per_round=inliers.per_round,
            candidates=inliers.candidates,
            scale=inliers.scale,
            keep=inliers.keep,
            rounds=inliers.rounds,
            largest=False,
            noise=sampling.noise,
            selection=sampling.selection,
        )

    def field(self, name: str) -> str:
        """Returns the name that an attribute has in a configuration: "sampling.k", "inliers.k"."""
        both = name in ("boundary", "noise", "selection")  # inliers have none of their own
        return f"sampling.{name}" if self.largest or both else f"inliers.{name}"


@dataclass(frozen=True)
class BoodSampler:
    """Settings of BOOD.

    Attributes:
      step: α, by which a step changes each component of a feature that begins as a unit vector.
      share: r, share of a class's features that become embeddings.
      beyond: c, steps from the first point behind the boundary to the embedding.
      most_steps: K, steps after which a feature that is still in its class is left out.
      temperature: t of the classifier by cosine.
    """

    step: float = 0.015
    share: float = 0.05
    beyond: int = 2
    most_steps: int = 100
    temperature: float = 0.1

    @classmethod
    def of(cls, settings: Settings) -> BoodSampler:
        """Returns the settings of a configuration."""
        own = settings.bood
        return cls(
            own.step, own.share, own.beyond, own.most_steps, settings.latent_space.temperature
        )


@dataclass(frozen=True)
class PlainSampler:
    """Settings of embeddings without the k-NN choice.

    Attributes:
      way: "random", "mean", "token", "interpolation", "prompts" or "text"; see `sample_plain`.
      count: embeddings of a class.
      scale: s, the standard deviation of the noise in each dimension.
    """

    way: str
    count: int
    scale: float

    @classmethod
    def of(cls, sampling: SamplingSettings) -> PlainSampler:
        """Returns the settings of a configuration; it reads those alone that the way uses."""
        way = sampling.method
        if way in FROM_TEXT:
            return cls(way, 1, 0.0)
        scale = 0.0 if way == "interpolation" else sampling.scale
        return cls(way, _count(sampling), scale)


def _count(sampling: SamplingSettings) -> int:
    """Returns how many embeddings of a class the paper's sampler keeps."""
    return sampling.rounds * sampling.per_round * sampling.keep


def _check_noise(field: str, noise: str, selection: str) -> None:
    """Raises UserError, which names `field`, if the noise does not go with the selection."""
    if selection == "published" and noise != "shared":
        raise UserError(
            f"{field} is {noise!r}; with sampling.selection = 'published' it must be 'shared', as "
            f"the published code's is"
        )


def bounded_by_class(sampling: SamplingSettings) -> dict[str, int]:
    """Returns the settings of outliers that the size of a class bounds, by their names."""
    found = {}
    if sampling.method in BY_DISTANCE:
        found["sampling.k"], found["sampling.boundary"] = sampling.k, sampling.boundary
    return found


def check_class_sizes(settings: Settings) -> None:
    """Checks that the samplers can choose as many as they are told to.

    Raises:
      UserError: names the setting `config.<section>.<field>`.
    """
    most = settings.latent_space.features_per_class
    sampling, inliers = settings.sampling, settings.inliers
    for field, value in {**bounded_by_class(sampling), "inliers.k": inliers.k}.items():
        if value > most:
            raise UserError(
                f"config.{field} is {value}; it must be at most the class size, "
                f"latent_space.features_per_class = {most}"
            )
    _check_noise("config.sampling.noise", sampling.noise, sampling.selection)
    for name, section in (("sampling", sampling), ("inliers", inliers)):
        if section.keep > section.candidates:
            raise UserError(
                f"config.{name}.keep is {section.keep}; it must be at most {name}.candidates = "
                f"{section.candidates}"
            )
