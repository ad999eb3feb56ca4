"""Packaging. Installed and tried on CPython 3.11, 3.12 and 3.13 (Linux, x86-64).

cyclone's metadata pins Twisted and pyOpenSSL releases of 2019 although it runs on current ones, so
nothing can depend on it. A wheel of ours therefore brings the package along: :class:`BuildPy` takes
cyclone's own wheel, checked against the hashes in requirements.txt, from the index or from the path
in ``AUTOPUSH_CYCLONE_WHEEL``. Editable installs (``make install``) have it from requirements.txt.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "autopush/__init__.py").read_text("utf-8"), re.MULTILINE
)[1]
BUNDLED = "autopush/libraries/bundle"


def cyclone_pin():
    """Return cyclone's lines of the lock."""
    lock = (HERE / "requirements.txt").read_text("utf-8")
    return re.search(r"^cyclone==(?:.*\\\n)*.*$", lock, re.MULTILINE)[0]


def download_cyclone(directory):
    """Let pip fetch cyclone's wheel, as it is configured, and return its path."""
    lock = Path(directory, "lock.txt")
    lock.write_text(cyclone_pin() + "\n", "utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    rules = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    done = subprocess.run([*pip, *rules, "--dest", directory, "--requirement", lock])
    if done.returncode:
        raise SystemExit(
            "autopush: cyclone's wheel can't be fetched. Without an index, put it somewhere"
            " (pip download --no-deps cyclone==1.3) and name it: AUTOPUSH_CYCLONE_WHEEL=PATH"
        )
    (wheel,) = Path(directory).glob("*.whl")
    return wheel


def unpack_cyclone(wheel, target):
    """Put the package and its licence into a folder, without tests and what starts projects.

    :raises SystemExit: it isn't the wheel that is locked
    """
    if hashlib.sha256(wheel.read_bytes()).hexdigest() not in cyclone_pin():
        raise SystemExit(f"autopush: {wheel} is not the wheel that requirements.txt names")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"cyclone/\w+\.py|.+\.dist-info/LICENSE", name):
                path = Path(target, "cyclone", name.rpartition("/")[2])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))


class BuildPy(build_py):
    """Adds cyclone to what is built."""

    def run(self):
        """Build; nothing is added to a working tree."""
        super().run()
        if self.editable_mode:
            return
        given = os.environ.get("AUTOPUSH_CYCLONE_WHEEL")
        with tempfile.TemporaryDirectory() as directory:
            wheel = Path(given) if given else download_cyclone(directory)
            unpack_cyclone(wheel, Path(self.build_lib, BUNDLED))


setup(
    name="autopush-server",
    version=VERSION,
    description="Web Push service",
    long_description="\n\n".join(
        (HERE / name).read_text("utf-8") for name in ("README.md", "CHANGELOG.md")
    ),
    long_description_content_type="text/markdown",
    license="MPL-2.0",
    url="https://autopush.readthedocs.io/",
    project_urls={"Documentation": "https://autopush.readthedocs.io/"},
    python_requires=">=3.11",
    cmdclass={"build_py": BuildPy},
    packages=find_packages(
        include=["autopush", "autopush.*", "automock", "automock.*"],
        exclude=["autopush.tests", "autopush.tests.*"],
    ),
    include_package_data=False,
    package_data={"autopush": ["db/*/schema/*.sql", "py.typed", "web/page/files/*"]},
    install_requires=[
        "attrs>=26.1",
        "autobahn==26.10.2",  # see autopush.libraries
        "boto3>=1.44",
        "ConfigArgParse>=1.9",
        "cryptography>=50",
        "datadog>=0.56,<1",
        "google-auth>=2.63",
        "h2==4.4.1",  # see autopush.libraries
        "hpack>=4.2",
        "httptools>=0.9",
        "marshmallow>=4.4,<5",
        "orjson>=3.13",
        "prometheus_client>=0.26",
        "pyOpenSSL>=26.4",
        "raven==6.10.0",  # see autopush.libraries
        "requests>=2.34",
        "segno>=1.6",
        "service-identity>=26.1",
        "treq>=26.7",
        "Twisted>=26.10",
        "ua-parser>=1.0.2",
    ],
    extras_require={
        "postgresql": ["psycopg[binary]>=3.3"],
        "testing": ["pytest>=8", "pywebpush>=2"],
    },
    entry_points={
        "console_scripts": [
            "autoendpoint = autopush.__main__:endpoint",
            "autokey = autopush.scripts.autokey:main",
            "autopush = autopush.__main__:connection",
            "autopush_data = autopush.scripts.data:main",
            "autopush_doctor = autopush.__main__:doctor",
            "autopush_standalone = autopush.__main__:main",
            "drop_users = autopush.scripts.drop_user:drop_users",
            "endpoint_diagnostic = autopush.diagnostic_cli:run_endpoint_diagnostic_cli",
        ],
        # Named as the module, so that -p autopush.testing.plugin names the same one.
        "pytest11": ["autopush.testing.plugin = autopush.testing.plugin"],
    },
    classifiers=[
        "Framework :: Twisted",
        "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
