"""``autokey``: print a new crypto key (spec/configuration 1.3)."""

from __future__ import annotations

import argparse

from cryptography.fernet import Fernet


def main() -> None:
    """Write one line to standard output, ready for the environment or an ini file."""
    parser = argparse.ArgumentParser(
        prog="autokey",
        description="Prints a new crypto key, as a line for the environment or a file of options.",
    )
    parser.parse_known_args()  # nothing but --help: others have never been an error
    print(f'CRYPTO_KEY="{Fernet.generate_key().decode()}"')


if __name__ == "__main__":
    main()
