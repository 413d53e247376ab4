"""torch.distributed.run, with one line instead of its traceback when a process fails.

The processes print their own errors.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    try:
        main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f'error: process {rank} ended with {failure.exitcode}', file=sys.stderr)
        sys.exit(1)
