"""torch.distributed.run, with one line instead of its traceback when a process fails.

The processes print their own errors.
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    try:
        main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.exit(f'error: process {rank} ended with {failure.exitcode}')
    except (KeyboardInterrupt, SignalException):
        sys.exit('stopped: interrupted by the user')
    except Exception as error:
        reason = str(error).partition('\n')[0] or type(error).__name__
        sys.exit(
            f'error: the processes cannot be started ({reason}); correct GPUS, NNODES, '
            'NODE_RANK, MASTER_ADDR or PORT.'
        )
