"""`python -m relightx` is the `relightx` command."""

import sys

from relightx.cli import main

sys.exit(main())
