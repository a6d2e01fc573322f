"""``python -m pnpx`` is the command ``pnpx``."""

from pnpx.cli import main

if __name__ == "__main__":
    main()
