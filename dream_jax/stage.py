"""Stages: what each part of a run declares about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream_jax.run import Run, Work


@dataclass(frozen=True)
class Stage:
    """A part of a run that is done or not, with a folder and a record of its own.

    Attributes:
      name: as users see it, such as "learn" or "train vos, seed 1".
      step: the step of the method that it belongs to, by which `--stages` chooses it.
      folder: relative to the run's.
      reads: the fields of the configuration that `make` and `check` read, or whole sections.
      make: makes the result in the folder; if interrupted and called again, it continues.
      inputs: names of the stages whose results it uses.
      parameters: what else the result depends on, such as the seed and the options of a training.
      check: raises UserError if `make` cannot succeed; called before any stage does any work.
      derived: whether the result is quickly made from other results: it is made again where
        settings or inputs have changed, while another stage is refused.
      products: files outside the folder that it makes, relative to the run's folder.
      open: gives the result to other stages as an object, where files do not do.
    """

    name: str
    step: str
    folder: str
    reads: tuple[str, ...]
    make: Callable[[Work], None]
    inputs: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Work], None] = lambda work: None
    derived: bool = False
    products: tuple[str, ...] = ()
    open: Callable[[Run], Any] | None = None
