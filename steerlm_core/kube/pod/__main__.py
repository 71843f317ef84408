"""The entry point: `python3 -m steerlm_core.kube.pod`."""

import os
import signal
import sys

if __name__ == "__main__":
    # The kernel drops a SIGTERM for process 1, which this is, until it has a handler, and the import takes seconds.
    # Until `main` has its own, nothing has begun that would have to be ended.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    from steerlm_core.kube.pod.main import main

    sys.exit(main())
