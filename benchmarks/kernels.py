"""Speed of the integer products beside the machine's limits, ggml and ONNX Runtime: ``edgeq bench kernels``.

python benchmarks/kernels.py [--types Q4_K,int4x32] [--rows 1,32,256] [--threads 2] [--seconds 3] [--json]
"""

import sys

from edgeq.cli import main

sys.argv[1:1] = ["bench", "kernels"]
main()
