"""The program's entry: `watchbill …` and `python -m watchbill …`."""

import sys


def main() -> None:
    from watchbill.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
