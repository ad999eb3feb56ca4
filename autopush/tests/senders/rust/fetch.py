"""Completes the lock file and fetches the crates.

Cargo also wants the name of its registry, with every crate. The lock file in the sources has
versions and hashes; the name is taken from the Cargo that is here.
"""

import re
import subprocess
import sys
from pathlib import Path

LOCK = Path("Cargo.lock")

if subprocess.run(["pkg-config", "--exists", "openssl"]).returncode:
    sys.exit("the headers of OpenSSL are not here")
subprocess.run(["cargo", "generate-lockfile"], check=True)
source = re.findall(r"^source = .*$", LOCK.read_text(), re.MULTILINE)[0]
locked = Path("Cargo.lock.in").read_text()
complete = re.sub(r"^(?=checksum = )", lambda _: f"{source}\n", locked, flags=re.MULTILINE)
LOCK.write_text(complete)
sys.exit(subprocess.run(["cargo", "fetch", "--locked"]).returncode)
