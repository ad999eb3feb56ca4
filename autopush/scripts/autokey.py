"""``autokey``: print a new crypto key (configuration.md 1.3)."""

from __future__ import annotations

from cryptography.fernet import Fernet


def main() -> None:
    """Write one line to standard output, ready for the environment or an ini file."""
    print(f'CRYPTO_KEY="{Fernet.generate_key().decode()}"')


if __name__ == "__main__":
    main()
