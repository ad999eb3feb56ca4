"""Packaging. Installed and tried on CPython 3.11, 3.12 and 3.13 (Linux, x86-64).

``pip install .`` gets everything but cyclone, whose metadata pins Twisted and pyOpenSSL releases of
2019 although it runs on current ones; add it with ``pip install --no-deps cyclone==1.3``.
requirements.txt is the complete lock: ``pip install --no-deps -r requirements.txt`` (that is what
``make install`` does).
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "autopush/__init__.py").read_text("utf-8"), re.MULTILINE
)[1]

setup(
    name="autopush",
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
    packages=find_packages(include=["autopush", "autopush.*", "automock", "automock.*"]),
    package_data={"autopush": ["db/sqlite/schema/*.sql", "py.typed"]},
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
        "service-identity>=26.1",
        "treq>=26.7",
        "Twisted>=26.10",
        "ua-parser>=1.0.2",
    ],
    entry_points={
        "console_scripts": [
            "autoendpoint = autopush.__main__:endpoint",
            "autokey = autopush.scripts.autokey:main",
            "autopush = autopush.__main__:connection",
            "autopush_doctor = autopush.__main__:doctor",
            "autopush_standalone = autopush.__main__:main",
            "drop_users = autopush.scripts.drop_user:drop_users",
            "endpoint_diagnostic = autopush.diagnostic_cli:run_endpoint_diagnostic_cli",
        ],
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
