"""The judges: reference libraries in environments of their own, which read what we write and write what we read.

`make judges` makes the environments below .judges/ and runs the tests here; a judge is `requirements/<name>.txt` and its scripts.
"""

import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / ".judges"


def judge(name: str, script: str, *arguments: object) -> str:
    """Runs a script in the environment of a judge.

    Args:
        name: Name of the judge, such as "lerobot-0.4.4".
        script: Name of a file in scripts/, without ending.
        arguments: Words that it gets.

    Returns:
        What it printed.
    """
    python = ENVIRONMENTS / name / "bin" / "python"
    assert python.is_file(), f"there is no judge {name}: make judges makes it"
    words = [str(python), str(HERE / "scripts" / f"{script}.py"), *(str(word) for word in arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
