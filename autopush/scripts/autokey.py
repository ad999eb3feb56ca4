"""``autokey``: print a new key (spec/configuration 1.3)."""

from __future__ import annotations

import argparse
import secrets

from cryptography.fernet import Fernet

ENTROPY = 32
"""Random bytes of an access key: 256 bits, 43 characters."""

ADVICE = """\
# An access key of autopush_standalone: only user agents that show one may come in.
# Append this to the file access_keys in the data directory, with mode 600, and restart:
#   autokey --access >> autopush-data/access_keys; chmod 600 autopush-data/access_keys
# Then give user agents the address with the key at its end, wss://push.example.org/<key>,
# as dom.push.serverURL in Firefox or the server's URL of a UnifiedPush distributor."""


def main() -> None:
    """Write one line to standard output, ready for the environment or an ini file."""
    parser = argparse.ArgumentParser(
        prog="autokey",
        description="Prints a new crypto key, as a line for the environment or a file of options.",
    )
    parser.add_argument(
        "--access",
        action="store_true",
        help="print a key to a private service instead, as lines for the file access_keys",
    )
    args, _ = parser.parse_known_args()  # others have never been an error
    if args.access:
        print(ADVICE)
        print(access_key())
    else:
        print(f'CRYPTO_KEY="{Fernet.generate_key().decode()}"')


def access_key() -> str:
    """Return a new key that no option parser takes for an option."""
    while True:
        key = secrets.token_urlsafe(ENTROPY)
        if not key.startswith("-"):
            return key


if __name__ == "__main__":
    main()
