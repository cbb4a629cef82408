"""`python -m failback.disks`."""

import sys

from failback.disks.command.main import main

sys.exit(main())
