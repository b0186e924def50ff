"""Names of units of work: a part of an output is named after the files and the range it was made from."""

import hashlib
import re


def file_stem(name: str) -> str:
    """The name of a unit that is one whole file, which can be part of a file name.

    Args:
        name: Name of the file below the corpus's folder; the folder "parts" of our own outputs is left out.

    Returns:
        The name without its ending, as it is, or else made safe and told apart by a digest.
    """
    stem = name.removeprefix("parts/").rpartition(".")[0]
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[-100:]
    return safe if safe == stem else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
