"""φ: the logit by which a training tells ID images from outliers.

For VOS (Du et al., ICLR 2022, section 3.3) it is that of the weighted energy; its published code
tests classifiers by the energy instead. A weight that has fallen below 0 stays there and hides its
class from φ, but not from the energy. A network without a φ is scored by its energy. RotPred and
MCD have a score of their own in its place.
"""

import jax

from dream_jax.detector.detectors.base import Detector
from dream_jax.detector.inputs import Inputs
from dream_jax.detector.options import Options


def _score(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    return inputs.certainty


PHI = Detector(
    name="phi",
    title="φ",
    paper="Du et al., VOS: Learning What You Don't Know by Virtual Outlier Synthesis, ICLR 2022",
    needs=frozenset({"certainty"}),
    score=_score,
    made_for="vos",
)
