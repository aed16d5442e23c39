"""A detector as ONNX, by jax2onnx: for programs without JAX.

jax2onnx is no requirement of the project, as it asks for an older Orbax, and it cannot translate
every detector. What it wrote is compared with the run's scores by ONNX Runtime.
"""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from dream_jax.detector.classifier import Classifier
from dream_jax.detector.scoring import Fitted, scoring_program
from dream_jax.errors import UserError
from dream_jax.models.resnet import INPUT_SCALE

FILE = "detector.onnx"
TOLERANCE = 1e-4  # of the scores' largest


def require_packages() -> None:
    """Raises UserError if the packages are missing."""
    try:
        import jax2onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--onnx needs the Python package {error.name}; get it with `pip install jax2onnx "
            f"onnxruntime` in an environment of its own: it changes the version of others"
        ) from error


def write_onnx(
    path: Path,
    classifier: Classifier,
    fitted: Fitted,
    images: Float[np.ndarray, "n H W C"],
    expected: Float[np.ndarray, " n"],
) -> float:
    """Writes images (n, H, W, C) → logits (n, classes), score (n,), with the weights inside.

    Args:
      path: of the file.
      images: to compare by; float32 in [0, 1].
      expected: their scores by the run.

    Returns:
      The largest difference of the scores.

    Raises:
      UserError: the detector cannot be translated, or its scores are others.
    """
    import jax2onnx
    import onnxruntime

    program = scoring_program(classifier.forward, {"score": fitted}, INPUT_SCALE)

    def score(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        made = program(classifier.variables, {"score": fitted.state}, images)
        return made["logits"], made["scores of"]["score"]

    try:
        jax2onnx.to_onnx(
            score, [("n", *images.shape[1:])], return_mode="file", output_path=str(path)
        )
        session = onnxruntime.InferenceSession(str(path))
        _, found = session.run(None, {session.get_inputs()[0].name: images})
    except Exception as error:  # jax2onnx, JAX and ONNX Runtime raise many kinds
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--onnx: jax2onnx cannot translate detector {fitted.detector.name} "
            f"({type(error).__name__}: {reason}); {path.parent} is written without {path.name}"
        ) from error
    difference = float(np.abs(found - expected).max())
    if difference > TOLERANCE * max(1.0, float(np.abs(expected).max())):
        path.unlink()
        raise UserError(
            f"--onnx: the scores of detector {fitted.detector.name} by ONNX Runtime differ by "
            f"{difference:.2g} from the run's; {path.parent} is written without {path.name}"
        )
    return difference
