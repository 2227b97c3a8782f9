"""Speed and error of the codecs beside ggml's: ``edgeq bench codecs``, which an installed package has too.

python benchmarks/codecs.py [--types Q4_K,Q6_K] [--importance] [--effort normal] [--json]
"""

import sys

from edgeq.cli import main

sys.argv[1:1] = ["bench", "codecs"]
main()
