"""`python -m cm2` is the command `cm2`."""

from cm2.cli.main import main

main()
