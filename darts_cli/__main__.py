"""`python -m darts_cli`."""

from darts_cli.cli import main

if __name__ == "__main__":
    main()
