"""QMUL ChairV2: the official release to a prepared set for fine-grained retrieval.

    python -m data_prep.chairv2 --raw FOLDER --out DATA

FOLDER holds the release, packed (any name that starts with `ChairV2`) or unpacked, in one of three
layouts: `ChairV2_photo/` and `ChairV2_sketch/` (svg, or png) with the lists `photo_train.txt`,
`photo_test.txt`, `sketch_train.txt`, `sketch_test.txt`; `train/sketch`, `train/photo`,
`test/sketch`, `test/photo` (or `sketch/train` and so on); or `trainA`, `trainB`, `testA`, `testB`
(A: sketches). The result is `DATA/chairv2/{train,test}/{sketch,photo}/`: sketch `X_k` depicts photo
`X`. An svg becomes a grey png whose longer side has --size pixels, by default 256; no source states
a size.

Source: Yu et al., Sketch Me That Shoe (2016), second release: 964 sketches to train, 311 to test.
"""

import sys
from pathlib import Path
from typing import Any

from data_prep import qmul

NAME, OFFICIAL = "chairv2", "ChairV2"


def prepare(raw: Path, out: Path, *, name: str = NAME, **options: Any) -> Path:
    """Makes `out/name` whole or not at all; options and errors as `qmul.prepare`."""
    return qmul.prepare(OFFICIAL, raw, out, name=name, **options)


def main(arguments: list[str] | None = None) -> int:
    return qmul.main(OFFICIAL, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
