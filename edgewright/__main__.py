"""`python -m edgewright`."""

from edgewright.cli import main

main()
