"""Dockerfile, compose files and systemd units: spec/deployment 2.2, 2.3, quirks D1 to D3."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet

from autopush.app.standalone import MIN_AUTH_KEY
from autopush.db.dynamodb.tables import READY_WITHIN
from autopush.db.open import postgresql_parameters
from autopush.options.parser import connection_parser, endpoint_parser, standalone_parser
from autopush.tests import TREE

DOCKERFILE = TREE / "Dockerfile"
COMPOSE = {name: TREE / f"docker-compose{name}.yml" for name in ("", ".standalone", ".postgresql")}
UNITS = sorted((TREE / "configs" / "systemd").glob("*.service"))
PARSERS = {
    "autopush": connection_parser,
    "autoendpoint": endpoint_parser,
    "autopush_standalone": standalone_parser,
}
KEYS = {"CRYPTO_KEY": "x", "AUTH_KEY": "y", "PGPASSWORD": "z"}
OF_LIBPQ = {"PGPASSWORD"}


def tool(*names):
    """The first of these commands that is installed, here or in the virtual environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return found
    pytest.skip(f"not installed: {' or '.join(names)}")


def instructions():
    """(instruction, argument) of each line of the Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def variables(parse):
    """Environment variables of a command's options."""
    return {getattr(action, "env_var", None) for action in parse()._actions}


def load(name, **environment):
    text = COMPOSE[name].read_text()
    return yaml.safe_load(text)


# ---------------------------------------------------------------------------------- Dockerfile


def test_dockerfile_passes_hadolint():
    done = subprocess.run([tool("hadolint"), DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_dockerfile_copies_what_exists_and_is_sent_to_the_engine():
    sent = (TREE / ".dockerignore").read_text().splitlines()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (TREE / source).exists(), source
                assert f"!{source}" in sent, source


def stages():
    """Stage -> its lines, with those of the stage it begins from."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions():
        if name == "FROM":
            origin, _, stage = rest.split()
            lines = found[stage] = list(found.get(origin, ()))
        else:
            lines.append((name, rest))
    return found


@pytest.mark.parametrize(
    ("stage", "command", "ports"),
    [
        ("standalone", "autopush_standalone", {"8080"}),
        ("daemons", "autopush", {"8080", "8081", "8082"}),
    ],
)
def test_image_runs_a_command_as_an_ordinary_user(stage, command, ports):
    found = dict(stages()[stage])
    assert found["CMD"] == f'["{command}"]'
    assert found["USER"].split(":")[0] not in ("0", "root")
    assert set(found["EXPOSE"].split()) == ports
    assert "ENTRYPOINT" not in found


def test_default_image_is_the_standalone_service():
    """The last stage is what is built where none is named."""
    assert list(stages())[-1] == "standalone"


def test_environment_of_the_image_means_something():
    (env,) = [rest for name, rest in instructions() if name == "ENV"]
    names = {word.partition("=")[0] for word in shlex.split(env)}
    assert names - {"PATH", "PYTHONUNBUFFERED"} <= variables(standalone_parser)


def install_steps(directory, prefix):
    """The commands of the first stage, led to other directories; COPY becomes cp."""
    for name, rest in instructions():
        words = rest.split()
        if name == "RUN":
            yield rest.replace("/opt/autopush", str(prefix))
        elif name == "COPY":
            if words[0].startswith("--from"):
                return
            *sources, target = words
            paths = " ".join(str(TREE / source) for source in sources)
            yield f"cp -r {paths} {directory / target}"


def test_install_steps_of_the_dockerfile(tmp_path):
    """In a fresh directory, with packages from the index; the commands then start."""
    source, prefix = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    shims = tmp_path / "bin"
    shims.mkdir()
    # The image's "python -m venv" comes with pip; Debian's may not, hence the helper.
    maker = TREE / ".ci" / "make_venv.py"
    (shims / "python").write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] || exit 9\nexec {sys.executable} {maker} "$3"\n'
    )
    (shims / "python").chmod(0o755)
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        "PATH": f"{shims}:{os.environ['PATH']}",
    }
    for step in install_steps(source, prefix):
        done = subprocess.run(
            step, shell=True, cwd=source, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
    # Whether all is there: nothing of this environment or tree may help.
    for command in (*PARSERS, "endpoint_diagnostic", "drop_users", "autokey"):
        words = [prefix / "bin" / command, "--help"]
        done = subprocess.run(
            words, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    check = "import autopush.main, automock, importlib.resources as r, autopush.db.sqlite as d;"
    check += "print(autopush.main.__file__); assert list(r.files(d).joinpath('schema').iterdir())"
    done = subprocess.run(
        [prefix / "bin" / "python", "-c", check], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(prefix))


# --------------------------------------------------------------------------------- compose


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_file_is_accepted_by_compose(name):
    words = [tool("docker-compose"), "-f", COMPOSE[name], "config", "--quiet"]
    env = {"PATH": os.environ["PATH"], **KEYS}
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_compose_demands_keys():
    words = [tool("docker-compose"), "-f", COMPOSE[""], "config", "--quiet"]
    done = subprocess.run(words, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    # The wrapper of the package ends with status 0 in any case.
    assert "CRYPTO_KEY" in done.stderr


def test_way_to_the_keys_needs_no_keys():
    """What the compose file says to do first, with the command of the image for the image."""
    lines = re.findall(r"^#   (.+)", COMPOSE[""].read_text(), re.MULTILINE)
    before = lines[: lines.index("docker compose up")]
    assert not any("compose" in line for line in before)
    (export,) = [line for line in before if line.startswith("export")]
    autokey = Path(sys.executable).parent / "autokey"
    script = export.replace("docker run --rm autopush-daemons autokey", str(autokey))
    show = f'{script}; printf "%s\\n%s" "$CRYPTO_KEY" "$AUTH_KEY"'
    tried = [subprocess.run(["/bin/sh", "-c", show], capture_output=True, text=True) for _ in "12"]
    (crypto_key, auth_key), others = (done.stdout.splitlines() for done in tried)
    assert Fernet(crypto_key) and len(auth_key) >= MIN_AUTH_KEY
    # Nobody has one that others can read in the manual.
    assert not {crypto_key, auth_key} & set(others)


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_variables_are_those_of_the_options(name):
    for service in load(name)["services"].values():
        command = service.get("command", [""])[0]
        if command in PARSERS:
            known = variables(PARSERS[command])
            # Those of both daemons are in one block.
            known |= variables(connection_parser) & variables(endpoint_parser)
            assert set(service["environment"]) <= known | OF_LIBPQ


def test_both_daemons_agree_on_endpoint_urls():
    """Quirk D1."""
    services = load("")["services"]
    ours = [services[name]["environment"] for name in ("autopush", "autoendpoint")]
    for name in ("SCHEME", "HOSTNAME", "PORT"):
        values = {env[f"ENDPOINT_{name}"] for env in ours}
        assert len(values) == 1, name
    assert ours[0]["ENDPOINT_HOSTNAME"] == "localhost"
    assert services["autoendpoint"]["ports"] == ["127.0.0.1:8082:8082"]


def test_node_is_found_under_its_name():
    node = load("")["services"]["autopush"]
    assert node["environment"]["ROUTER_HOSTNAME"] == node["hostname"] == "autopush"


def test_nodes_on_postgresql_are_found_under_their_names():
    services = load(".postgresql")["services"]
    nodes = {name: one for name, one in services.items() if one.get("command") == ["autopush"]}
    assert set(nodes) == {"autopush1", "autopush2"}
    for name, node in nodes.items():
        assert node["environment"]["ROUTER_HOSTNAME"] == node["hostname"] == name
    daemons = [one for one in services.values() if one.get("command", [""])[0] in PARSERS]
    assert len(daemons) == 4
    (dsn,) = {one["environment"]["DB_DSN"] for one in daemons}
    assert dsn == "postgresql://autopush@postgresql/autopush"
    assert postgresql_parameters(dsn)


def test_nginx_before_the_cluster(tmp_path):
    """It takes the configuration, which names every node."""
    parsed = load(".postgresql")
    text = (TREE / parsed["configs"]["nginx"]["file"]).read_text()
    for name, service in parsed["services"].items():
        if service.get("command", [""])[0] in PARSERS:
            (place,) = re.findall(rf"server {name}:(\d+);", text)
            assert place in service["expose"]
            text = text.replace(f"server {name}:", "server 127.0.0.1:")
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off;\n{text}\n}}")
    words = [tool("nginx"), "-t", "-c", conf, "-p", tmp_path, "-e", "stderr"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_compose_mounts_nothing_that_does_not_exist():
    """Quirk D2."""
    for name in COMPOSE:
        for service in load(name)["services"].values():
            for volume in service.get("volumes", []):
                assert not volume.startswith((".", "/"))


def test_options_of_the_compose_files_are_accepted(monkeypatch):
    for name in COMPOSE:
        for service in load(name)["services"].values():
            command = service.get("command", [""])[0]
            if command not in PARSERS:
                continue
            with monkeypatch.context() as patch:
                for key, value in service["environment"].items():
                    patch.setenv(key, re.sub(r"\$\{\w+:?[-?]?(.*)\}", r"\1", str(value)))
                PARSERS[command]().parse_args([])


# ---------------------------------------------------------------------------------- systemd


def unit(path):
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(path)
    return parser


def test_there_is_a_unit_for_each_server():
    assert {path.stem for path in UNITS} == set(PARSERS)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_unit_passes_systemd_analyze_verify(path, tmp_path):
    analyze = tool("systemd-analyze")
    copy = tmp_path / path.name
    # Only an executable that exists is accepted.
    copy.write_text(path.read_text().replace("/opt/autopush/bin/", "/bin/true "))
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_unit_is_sandboxed(path):
    words = [tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", path]
    done = subprocess.run(words, capture_output=True, text=True)
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("systemd-analyze is too old to judge a file")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_unit_runs_the_command_with_options_it_has(path, monkeypatch):
    service = unit(path)["Service"]
    program, *options = shlex.split(service["ExecStart"])
    assert program == f"/opt/autopush/bin/{path.stem}"
    PARSERS[path.stem]().parse_args(options)
    for assignment in shlex.split(service.get("Environment", "")):
        assert assignment.partition("=")[0] in variables(PARSERS[path.stem])
    assert service["DynamicUser"] == "yes"
    assert "privileged" in service["SystemCallFilter"]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_unit_is_not_restarted_for_an_unknown_option(path):
    service = unit(path)["Service"]
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")


@pytest.mark.parametrize("name", ["autopush", "autoendpoint"])
def test_start_may_take_as_long_as_tables_do(name):
    """The router table, and those of last, this and next month."""
    service = unit(TREE / "configs" / "systemd" / f"{name}.service")["Service"]
    assert service["Type"] == "notify"
    minutes = int(service["TimeoutStartSec"].removesuffix("min"))
    assert minutes * 60 > 4 * READY_WITHIN
