"""Which rules does a lesson break?

python tests/notebooks/check_lesson.py notebooks/02_ddim.ipynb ...
"""

import sys
from pathlib import Path

import nbformat


def main(paths: list[str]) -> int:
    """Print every broken rule of the notebooks; returns how many there are."""
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the rules import the answers in tests/
    from notebook_rules import RULES
    from teaching_rules import TEACHING

    count = 0
    for path in paths:
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        for name, check in {**RULES, **TEACHING}.items():
            for problem in check(notebook):
                print(f"{path}: {name}: {problem}")
                count += 1
    return count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
