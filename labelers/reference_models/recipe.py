"""The recipe of one reference model, as plain data."""

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """The recipe of one reference model.

    Args:
        size: Name of the size, such as "s".
        width: D, width of the image tower.
        layers: Layers of the image tower. One alone cannot tell what stands next to what.
        heads: Attention heads of the image tower, at least 4.
        text_width: Width of the text tower.
        text_layers: Layers of the text tower.
        text_heads: Attention heads of the text tower.
        embedding: E, size of the shared embedding.
        steps: Optimizer steps.
        batch_size: B, frames per step.
        patches_kept: K, patches of a frame that enter the image tower before `full_share`.
        full_share: Share of the steps, at the end, that see all patches.
        resized_share: Share of a batch whose frames are drawn larger and resized as the image processor does.
        num_resized: Number of such frames that are drawn, once, at the start.
        learning_rate: Peak of the cosine schedule.
        weight_decay: Weight decay of AdamW, on matrices.
        warmup_steps: Steps of linear warm-up.
        max_scale: Largest factor of the cosines in the softmaxes, the inverse of the smallest temperature.
        sigmoid_weight: Weight of the sigmoid loss, which gives cosines an absolute meaning.
        helper_weight: Weight of the helper losses of patches.
        num_evaluated: Scenes drawn at the end for the figures of the card.
        image_size: S, height and width of the model's input in pixels; None for that of the domain.
        patch_size: Height and width of a patch in pixels; None for that of the domain.
        stretch: Whether frames that are not square are stretched into the model's input; else their middle is cut out.
        num_frames: Frames that are drawn once, by domains that draw a stock instead of every batch anew.
        stored: "float32" or "float16", number format of the weights on disk.

    Raises:
        ValueError: A value is out of its range.
    """

    size: str
    width: int
    layers: int
    heads: int
    text_width: int
    text_layers: int
    text_heads: int
    embedding: int
    steps: int
    batch_size: int = 512
    patches_kept: int = 20
    full_share: float = 0.1
    resized_share: float = 0.125
    num_resized: int = 4096
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup_steps: int = 200
    max_scale: float = 50.0
    sigmoid_weight: float = 0.2
    helper_weight: float = 1.0
    num_evaluated: int = 4096
    image_size: int | None = None
    patch_size: int | None = None
    stretch: bool = False
    num_frames: int = 0
    stored: str = "float32"

    def __post_init__(self) -> None:
        rules = {
            "layers": (self.layers >= 1, "at least 1", self.layers),
            "heads": (self.heads >= 4, "at least 4", self.heads),
            "width": (self.width % self.heads == 0, "a multiple of heads", self.width),
            "text_width": (self.text_width % self.text_heads == 0, "a multiple of text_heads", self.text_width),
            "steps": (self.steps >= 1, "at least 1", self.steps),
            "full_share": (0 <= self.full_share <= 1, "between 0 and 1", self.full_share),
            "resized_share": (0 <= self.resized_share <= 1, "between 0 and 1", self.resized_share),
            "stored": (self.stored in ("float32", "float16"), "float32 or float16", self.stored),
        }
        self._refuse_first(rules)

    def check_frames(self, side: int, least_kept: int) -> None:
        """Refuses a recipe that does not fit the frames of a domain.

        Args:
            side: Patches per side of a frame.
            least_kept: Smallest number of patches of a frame that show everything in it.

        Raises:
            ValueError: The heads are too narrow for the positions of the patches, or too few or too many patches are kept.
        """
        narrowest = position_channels(side)
        kept, most = self.patches_kept, side**2
        self._refuse_first(
            {
                "width": (
                    self.width // self.heads >= narrowest,
                    f"{narrowest} or more per head for {side}x{side} patches",
                    self.width,
                ),
                "patches_kept": (least_kept <= kept <= most, f"between {least_kept} and {most}", kept),
            }
        )

    def _refuse_first(self, rules: Mapping[str, tuple[bool, str, object]]) -> None:
        for name, (holds, rule, value) in rules.items():
            if not holds:
                raise ValueError(f"{name} must be {rule}: got {value}. Change the settings of size {self.size!r}")


def position_channels(side: int) -> int:
    """Returns how many channels tell the positions of side x side patches apart; see `architecture.start_local`."""
    return 4 * math.ceil(side / 2)
