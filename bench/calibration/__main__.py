"""``python -m bench.calibration``: simulate, replay, and write ``docs/calibration.md``. Minutes on one core."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import report

TARGET = Path(__file__).parents[2] / "docs" / "calibration.md"


def main() -> None:
    """Run everything and write the document; ``--quick`` is for a look, and writes nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the draws, printed only")
    quick = parser.parse_args().quick
    text = report.document(scale=0.05 if quick else 1.0)
    sys.stdout.write(text)
    if not quick:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(text)


if __name__ == "__main__":
    main()
