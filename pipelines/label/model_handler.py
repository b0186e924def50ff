"""The labeler as a ModelHandler, for people who have Beam pipelines of their own: `frames | RunInference(LabelerHandler(...))`.

`vlm-rewards label` does not go this way: RunInference's dead letters hold whole batches, its batches never cross bundles, and one
runner drops what its batching emits last. Scores are the same bits all the same.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from vlm_rewards.labelers.labeler import Labeler
from vlm_rewards.labelers.provenance import Provenance
from vlm_rewards.labelers.settings import LabelerSettings
from vlm_rewards.pipelines.label.shared_labelers import same_threads, shared_labeler


class LabelerHandler(ModelHandler[np.ndarray, np.ndarray, Labeler]):
    """Scores frames for all goals: elements [H, W, 3] uint8 in, [G] float32 out, in the order of the goals.

    Wrap it in Beam's `KeyedModelHandler` for elements with a key. A worker process has one copy of the model, and as many threads
    of torch as its owner gave it: scores have the same bits with any number.

    Args:
        settings: Settings of the labeler. The model is loaded at once, so that workers can tell whether theirs is the same.

    Raises:
        ValueError: A window is of more than one frame, that of the scores or of the encoder: a Beam pipeline has no order.
    """

    def __init__(self, settings: LabelerSettings) -> None:
        if settings.window.frames > 1:
            raise ValueError(
                f"a window must be of one frame for RunInference, whose elements have no order, got {settings.window.frames}; "
                f"label with vlm-rewards label, or set the window to 1"
            )
        super().__init__(min_batch_size=1, max_batch_size=settings.batch_size)
        with same_threads():
            labeler = shared_labeler(settings).labeler
        if labeler.encoder.window > 1:
            raise ValueError(
                f"an encoder must look at single frames for RunInference, whose elements have no order: got {settings.model}, "
                f"which looks at {labeler.encoder.window} at once. Label with vlm-rewards label."
            )
        self._settings = labeler.settings
        self._provenance = Provenance.of(labeler)

    def load_model(self) -> Labeler:
        """Returns the process's labeler for the settings.

        Raises:
            ValueError: It is not the labeler that the pipeline was built with.
        """
        with same_threads():
            labeler = shared_labeler(self._settings).labeler
        self._provenance.check(labeler)
        return labeler

    def run_inference(
        self, batch: Sequence[np.ndarray], model: Labeler, inference_args: dict[str, Any] | None = None
    ) -> Iterable[np.ndarray]:
        """Scores a batch of frames, of one size or of many; there are no further arguments."""
        return list(model(batch))

    def get_num_bytes(self, batch: Sequence[np.ndarray]) -> int:
        """The frames' bytes; Beam's own way would pickle every batch to tell."""
        return sum(frame.nbytes for frame in batch)

    def get_metrics_namespace(self) -> str:
        """The prefix of this handler's metrics."""
        return "vlm_rewards"
