"""The data directory: keys are made once, nothing is ever overwritten."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest
from cryptography.fernet import Fernet

from autopush.app.standalone import (
    DataDir,
    StartError,
    parse_crypto_key,
    standalone_config,
    use_data_dir,
    write_new_file,
)
from autopush.logging.redaction import hide, redact_text
from autopush.options.parser import parse_standalone


@pytest.fixture
def data_dir(tmp_path):
    directory = DataDir(str(tmp_path / "data"))
    yield directory
    directory.release()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_is_made_for_the_owner_only(data_dir):
    assert mode(data_dir.path) == 0o700


def test_keys_are_made_once_for_the_owner_only(data_dir):
    for keys, name in ((data_dir.crypto_keys, "crypto_key"), (data_dir.auth_keys, "auth_key")):
        first = keys()
        assert len(first) == 1
        assert keys() == first
        assert mode(data_dir.path / name) == 0o600
    Fernet(data_dir.crypto_keys()[0])
    assert sorted(os.listdir(data_dir.path)) == ["auth_key", "crypto_key", "lock"]


def test_key_of_the_log_is_made_whenever_it_is_missing(data_dir):
    """Also beside a database of a release that had none: only names in logs depend on it."""
    data_dir.database.touch()
    first = data_dir.log_key()
    assert len(first) == 44
    assert data_dir.log_key() == first
    assert mode(data_dir.path / "log_key") == 0o600
    (data_dir.path / "log_key").write_text(f"# another\n{'k' * 20}\n{first}\n")
    assert data_dir.log_key() == "k" * 20
    (data_dir.path / "log_key").write_text("short\n")
    with pytest.raises(StartError, match="Bad key file"):
        data_dir.log_key()


def test_several_keys_newest_first(data_dir):
    new, old = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    text = f'# rotated today\nCRYPTO_KEY="{new}"\n\n{old}\n'
    (data_dir.path / "crypto_key").write_text(text)
    assert data_dir.crypto_keys() == [new, old]


@pytest.mark.parametrize(
    "content", [b"", b"\n# nothing\n", b"too short", b"\xff\xfe", b"a b\n" * 30, b"x" * 15]
)
@pytest.mark.parametrize("name", ["crypto_key", "auth_key"])
def test_bad_key_file_is_reported_and_kept(data_dir, name, content):
    path = data_dir.path / name
    path.write_bytes(content)
    with pytest.raises(StartError, match="Bad key file") as caught:
        getattr(data_dir, f"{name}s")()
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_access_keys_are_never_made(data_dir):
    assert data_dir.access_keys() == []
    assert not (data_dir.path / "access_keys").exists()
    (data_dir.path / "access_keys").write_text(f"# one\n{'a' * 22}\n\n{'-_' * 64}\n")
    assert data_dir.access_keys() == ["a" * 22, "-_" * 64]


@pytest.mark.parametrize("content", ["", "a" * 21, "a" * 129, "a" * 30 + " b", "a" * 30 + "="])
def test_bad_access_keys_are_reported_and_not_shown(data_dir, content):
    (data_dir.path / "access_keys").write_text(content)
    with pytest.raises(StartError, match="Bad key file") as caught:
        data_dir.access_keys()
    assert not content or content not in str(caught.value)


def test_access_keys_of_options_come_before_the_file(data_dir):
    (data_dir.path / "access_keys").write_text("f" * 22)
    for words, keys in ((["--access_key", "o" * 22], ["o" * 22]), ([], ["f" * 22])):
        ns = parse_standalone((), words)
        conf = standalone_config(ns)
        try:
            use_data_dir(conf, data_dir, ns)
            assert conf.access_keys == keys
            assert redact_text(f"<{keys[0]}>") == "<...>"
            assert keys[0] not in repr(conf)
        finally:
            hide([])


def test_bad_key_is_not_shown(data_dir):
    (data_dir.path / "crypto_key").write_text("secret-but-mistyped")
    with pytest.raises(StartError) as caught:
        data_dir.crypto_keys()
    assert "secret" not in str(caught.value)


def test_key_file_that_is_a_directory(data_dir):
    (data_dir.path / "crypto_key").mkdir()
    with pytest.raises(StartError, match="Can't read key file"):
        data_dir.crypto_keys()


def test_missing_key_beside_a_database_is_not_replaced(data_dir):
    data_dir.database.write_bytes(b"something")
    with pytest.raises(StartError, match="is missing although there is a database"):
        data_dir.crypto_keys()
    assert not (data_dir.path / "crypto_key").exists()


def test_missing_key_beside_a_database_elsewhere_is_not_replaced(data_dir, tmp_path):
    ns = parse_standalone((), ["--db_dsn", f"sqlite://{tmp_path}/db"])
    conf = standalone_config(ns)
    (tmp_path / "db").write_bytes(b"something")
    with pytest.raises(StartError, match="is missing although there is a database"):
        use_data_dir(conf, data_dir, ns)
    assert not (data_dir.path / "crypto_key").exists()


def test_draft_of_a_crashed_start_is_replaced(data_dir):
    (data_dir.path / "crypto_key.new").write_text("half")
    assert parse_crypto_key(data_dir.crypto_keys()[0])
    assert not (data_dir.path / "crypto_key.new").exists()


def test_write_new_file_never_overwrites(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(FileExistsError):
        write_new_file(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_second_process_is_told_who_uses_it(data_dir):
    script = "import sys; from autopush.app.standalone import DataDir; DataDir(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(data_dir.path)], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert f"is in use by another autopush process ({os.getpid()})" in done.stderr


def test_directory_is_free_after_release(data_dir):
    keys = data_dir.crypto_keys()
    data_dir.release()
    again = DataDir(str(data_dir.path))
    assert again.crypto_keys() == keys
    again.release()


def test_path_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(StartError, match="is not a directory"):
        DataDir(str(path))
    with pytest.raises(StartError, match="Can't create data_dir"):
        DataDir(str(path / "below"))
    assert path.read_text() == "mine"


def test_unwritable_directory():
    with pytest.raises(StartError, match=r"Can't (write to|create) data_dir"):
        DataDir("/proc/self")


def test_autokey_says_what_it_does_instead_of_printing_a_key():
    done = subprocess.run(
        [sys.executable, "-m", "autopush.scripts.autokey", "--help"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Prints a new crypto key" in done.stdout and 'CRYPTO_KEY="' not in done.stdout


def test_autokey_prints_a_key_the_file_accepts():
    done = subprocess.run(
        [sys.executable, "-m", "autopush.scripts.autokey"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    key = parse_crypto_key(done.stdout.strip())
    assert key is not None
    assert done.stdout == f'CRYPTO_KEY="{key}"\n'
    assert len(key) == 44


def test_a_lock_whose_owner_has_gone_is_waited_for(tmp_path):
    """Workers of a service that was killed have it until they have ended."""
    first = DataDir(str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "lock").write_text(f"{gone.pid}\n")
    released = threading.Timer(0.2, first.release)
    released.start()
    second = DataDir(str(tmp_path))
    released.join()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(StartError, match="in use"):
        DataDir(str(tmp_path))
    second.release()
