"""The entry point: `python3 -m steerlm_core.kube.pod`."""

import sys

from steerlm_core.kube.pod.main import main

if __name__ == "__main__":
    sys.exit(main())
