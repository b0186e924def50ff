"""What every encoder is asked for."""

PRECISIONS = ("auto", "float32", "bfloat16")
DEFAULT_BATCH_SIZE = 64
